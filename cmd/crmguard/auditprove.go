package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/crmguard/crmguard/audit"
)

var auditProve = command{
	name:  "audit prove",
	args:  "-db DATABASE|FOLDER -key FILE.pub [-o FILE] [-prefix P] ENTRY",
	about: "write a file that proves one entry of a journal to whoever has the public key",
	help: `Writes the record of the entry with this number, the newest checkpoint over it, and the
hashes that lead from one to the other: at most one for each doubling of the journal. The
file goes to the output or, with -o, to a file that does not exist yet, which usually ends
in .tlog-proof. "crmguard audit check" checks it on any machine, without the journal. It holds
the ids in the entry in the clear, and private values sealed.

` + databaseHelp + `
Exit codes: 0 written, 2 not understood, 3 not made, as there is no such entry or no
checkpoint covers it yet, 20 tampered with: the entry does not lead to what was signed.
`,
	do: proveEntry,
}

func proveEntry(c *call) int {
	f := c.journalFlags()
	key := c.flags.String("key", "", keyUsage)
	to := c.flags.String("o", "", "new `file` for the proof; without it the output")
	rest, code, ok := c.parse(1)
	if !ok {
		return code
	}
	seq, err := strconv.ParseInt(rest[0], 10, 64)
	switch {
	case f.db == "" || *key == "":
		return c.misused("-db and -key are needed")
	case err != nil || seq < 0:
		return c.misused("%s is not the number of an entry: they are numbered from 0", rest[0])
	}
	verifier, err := readVerifier(*key)
	if err != nil {
		return c.fail(unable, "the verifying key: %v", err)
	}
	store, done, code, ok := f.open(c)
	if !ok {
		return code
	}
	defer done() //nolint:errcheck // nothing was written
	head, err := store.Head(c)
	if err == nil && seq >= head.Size {
		return c.fail(unable, "there is no entry %d: the journal has %d", seq, head.Size)
	}
	if err != nil {
		return c.fail(failure(err), "%v", err)
	}
	proof, err := audit.ProveStore(c, store, verifier, seq)
	if errors.Is(err, audit.ErrUnsigned) {
		err = advised{err, "Let the CRM run until it has signed: a minute, usually"}
	}
	if err != nil {
		return c.fail(failure(err), "%v", err)
	}
	if err := c.deliver(*to, proof); err != nil {
		return c.fail(unable, "%v", err)
	}
	return good
}

// deliver writes to the output, or to a file that does not exist yet.
func (c *call) deliver(name string, text []byte) error {
	if name == "" {
		_, err := c.out.Write(text)
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // whoever calls names it
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

var auditCheck = command{
	name:  "audit check",
	args:  "-key FILE.pub [-json] FILE…|-",
	about: "check files that prove entries, with the public key and nothing else",
	help: `Says of each file that "crmguard audit prove" or the CRM wrote whether the entry in it was
signed by the owner of the key, and what it says. It needs no journal and no network. That
nobody removed other entries is not what a proof says: for that verify the journal.

Exit codes: 0 all hold, 2 not understood, 3 a file or the key cannot be read, 20 one or more
do not hold.
`,
	do: checkProofs,
}

// maxProof is far above a proof of the largest record.
const maxProof = 1 << 20

// proofResult is what checking a file found.
type proofResult struct {
	File   string     `json:"file"`
	Holds  bool       `json:"holds"`
	Detail string     `json:"detail,omitempty"`     // why it does not hold
	Size   int64      `json:"checkpoint,omitempty"` // entries that the checkpoint covers
	Entry  *entryLine `json:"entry,omitempty"`
}

func checkProofs(c *call) int {
	key := c.flags.String("key", "", keyUsage)
	asJSON := c.flags.Bool("json", false, "print JSON")
	files, code, ok := c.parseAny()
	switch {
	case !ok:
		return code
	case *key == "" || len(files) == 0:
		return c.misused("-key and files are needed")
	}
	verifier, err := readVerifier(*key)
	if err != nil {
		return c.fail(unable, "the verifying key: %v", err)
	}
	results := make([]proofResult, 0, len(files))
	for _, name := range files {
		proof, err := c.readProof(name)
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		result := proofResult{File: name}
		if proven, err := audit.CheckProof(proof, nil, verifier); err != nil {
			result.Detail, code = err.Error(), tampered
		} else {
			line := lineOf(&proven.Entry)
			result.Holds, result.Size, result.Entry = true, proven.Size, &line
		}
		results = append(results, result)
	}
	if *asJSON {
		if err := printJSON(c.out, results); err != nil {
			return c.fail(unable, "%v", err)
		}
		return code
	}
	for _, r := range results {
		if !r.Holds {
			fmt.Fprintf(c.out, "%s: DOES NOT HOLD: %s\n", plain(r.File), plain(r.Detail))
			continue
		}
		fmt.Fprintf(c.out, "%s: holds: entry %d of a journal of %d, signed by %s\n  %s\n", plain(r.File), r.Entry.Seq, r.Size, plain(verifier.Name()), r.Entry)
	}
	return code
}

func (c *call) readProof(name string) ([]byte, error) {
	from := c.in
	if name != "-" {
		file, err := os.Open(name) //nolint:gosec // whoever calls names it
		if err != nil {
			return nil, err
		}
		defer file.Close() //nolint:errcheck // it was read only
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, maxProof+1))
	if err == nil && len(text) > maxProof {
		err = fmt.Errorf("%s is too large for a proof", plain(name))
	}
	return text, err
}

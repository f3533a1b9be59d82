package main

import (
	"errors"
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

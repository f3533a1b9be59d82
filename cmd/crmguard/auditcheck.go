package main

import (
	"encoding/json"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
)

var auditCheck = command{
	name:  "audit check",
	args:  "-key FILE.pub [-json] FILE…|-",
	about: "check proofs of entries, and extracts, with the public key and nothing else",
	help: `Says of each file that "crmguard audit prove" or "audit extract" or the CRM wrote whether the owner
of the key signed what is in it, and what that is. It needs no journal and no network. An extract
says besides that no entry that was asked for is missing; a proof of one entry does not say that
no others were removed: for that verify the journal.

Exit codes: 0 all hold, 2 not understood, 3 a file or the key cannot be read, 20 one or more
do not hold.
`,
	do: checkProofs,
}

// maxProof bounds what is read of a file; extracts have many entries.
const maxProof = 1 << 30

// proofResult is what checking a file found.
type proofResult struct {
	File    string            `json:"file"`
	Holds   bool              `json:"holds"`
	Detail  string            `json:"detail,omitempty"`     // why it does not hold
	Size    int64             `json:"checkpoint,omitempty"` // entries that the checkpoint covers
	Extract bool              `json:"extract"`              // these are all that were asked for
	Asked   string            `json:"asked,omitempty"`
	Entries []json.RawMessage `json:"entries,omitempty"`

	entries []audit.Entry
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
		text, err := c.readAtMost(name, maxProof)
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		result := checkProof(text, verifier)
		if result.File = name; !result.Holds {
			code = tampered
		}
		results = append(results, result)
	}
	if *asJSON {
		if err := nameEntries(results); err != nil {
			return c.fail(unable, "%v", err)
		}
		if err := printJSON(c.out, results); err != nil {
			return c.fail(unable, "%v", err)
		}
		return code
	}
	for i := range results {
		c.tellProof(&results[i], verifier.Name())
	}
	return code
}

func checkProof(text []byte, v note.Verifier) proofResult {
	r := proofResult{Extract: isExtract(text)}
	var err error
	if r.Extract {
		r.entries, r.Asked, r.Size, err = checkExtract(text, v)
	} else {
		var proven audit.Proven
		if proven, err = audit.CheckProof(text, nil, v); err == nil {
			r.entries, r.Size = []audit.Entry{proven.Entry}, proven.Size
		}
	}
	if r.Holds = err == nil; !r.Holds {
		r.Detail, r.entries = err.Error(), nil // some of which may be right
	}
	return r
}

// nameEntries writes the entries of results as JSON.
func nameEntries(results []proofResult) error {
	for i := range results {
		r := &results[i]
		for j := range r.entries {
			text, err := jsonOf(&r.entries[j])
			if err != nil {
				return err
			}
			r.Entries = append(r.Entries, text)
		}
	}
	return nil
}

func (c *call) tellProof(r *proofResult, signer string) {
	switch {
	case !r.Holds:
		fmt.Fprintf(c.out, "%s: DOES NOT HOLD: %s\n", plain(r.File), plain(r.Detail))
	case r.Extract:
		fmt.Fprintf(c.out, "%s: holds: %s of a journal of %d entries, signed by %s: all with %s\n", plain(r.File), count(len(r.entries), "act"), r.Size, plain(signer), r.Asked)
	default:
		fmt.Fprintf(c.out, "%s: holds: entry %d of a journal of %d entries, signed by %s\n", plain(r.File), r.entries[0].Seq, r.Size, plain(signer))
	}
	for i := range r.entries {
		fmt.Fprintf(c.out, "  %s\n", lineOf(&r.entries[i]))
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

var auditExtract = command{
	name:  "audit extract",
	args:  "-tenant T [-client ID] [-person ID] [-record KIND/ID] [-action A] [-outcome O] [-from TIME] [-to TIME] -o FILE " + logArgs,
	about: "write all entries about a client or person to a file that proves itself",
	help: `Verifies the journal and writes all entries of a tenant that match, oldest first, each with its
proof, and at the end a statement, signed by the key of the journal, that these are all: such as
the acts about a client whose data was destroyed. "crmguard audit check" checks the file on any
machine with the public key. That an extract was made is an entry of the journal. It holds the ids
in the entries in the clear, and private values sealed.

` + logHelp + `
Exit codes: 0 written, 2 not understood, 3 not written; from 20 on the journal was tampered with,
and nothing was written: crmguard help audit verify lists the codes.
`,
	do: extractEntries,
}

func extractEntries(c *call) int {
	f, asked := c.logFlags(), c.queryFlags()
	to := c.flags.String("o", "", "new `file` for the extract")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	q, err := asked.query()
	if err == nil {
		err = f.check()
	}
	if err == nil && *to == "" {
		err = errors.New("-o is needed")
	}
	if err != nil {
		return c.misused("%v", err)
	}
	return c.withLog(f, func(w *writing) (err error) {
		file, err := os.OpenFile(*to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		x, err := w.Extract(crmguard.System(c, q.Tenant, "audit extract"), q, file)
		if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
			return errors.Join(err, os.Remove(*to)) // what has no statement proves nothing
		}
		fmt.Fprintf(c.err, "entries in the extract: %d, of the %d that the newest checkpoint covers\n", x.Entries, x.Size)
		return nil
	})
}

// checkExtract checks an extract, and returns its entries and what was asked for.
func checkExtract(text []byte, v note.Verifier) (entries []audit.Entry, asked string, size int64, err error) {
	x, err := audit.CheckExtract(bytes.NewReader(text), v, func(p audit.Proven) error {
		entries = append(entries, p.Entry)
		return nil
	})
	return entries, describeQuery(&x.Query), x.Size, err
}

func describeQuery(q *audit.Query) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+plain(value))
		}
	}
	add("tenant", q.Tenant)
	add("event", q.Event)
	add("client", q.Client)
	add("person", q.Subject)
	add("kind", q.Kind)
	add("record", q.Record)
	add("action", string(q.Action))
	if q.Outcome != 0 {
		add("outcome", q.Outcome.String())
	}
	if q.Addr.IsValid() {
		add("addr", q.Addr.String())
	}
	add("from", (&moment{&q.From}).String())
	add("to", (&moment{&q.To}).String())
	return strings.Join(parts, " ")
}

// isExtract tells an extract, which is JSON, from the proof of one entry.
func isExtract(text []byte) bool { return bytes.HasPrefix(text, []byte("{")) }

// readAtMost reads a file, or the input for "-".
func (c *call) readAtMost(name string, limit int64) ([]byte, error) {
	from := c.in
	if name != "-" {
		file, err := os.Open(name) //nolint:gosec // whoever calls names it
		if err != nil {
			return nil, err
		}
		defer file.Close() //nolint:errcheck // it was read only
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d MiB", plain(name), limit>>20)
	}
	return text, err
}

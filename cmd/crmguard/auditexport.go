package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
)

var auditExport = command{
	name:  "audit export",
	args:  "-db DATABASE|FOLDER -key FILE.pub [-tenant T] [-after N] [-format FORMAT] [-o FILE | -syslog HOST:PORT [-ca FILE]] [-prefix P]",
	about: "hand all entries of a journal to other programs: as JSON Lines, OCSF, CSV or syslog",
	help: `Prints all entries, or those of one tenant, oldest first, a line each, in the formats of package
auditout; or sends them to a log server, as messages of RFC 5424 over TLS. The last line on the
error output names the number to go on after another day, with -after. Private values are
sealed, and only named. A CRM that sends its entries as they come runs auditout.Pump.

` + readingHelp + `
` + databaseHelp + `
Exit codes: 0 handed over, 2 not understood, 3 could not be read or was not taken, 20 an entry was
tampered with and was left out, or entries are missing.
`,
	do: exportJournal,
}

// exporting are the arguments of one export.
type exporting struct {
	journal                             *journalFlags
	key, tenant, format, to, syslog, ca string
	after                               int64
}

func (x *exporting) check() error {
	switch {
	case x.journal.db == "" || x.key == "":
		return errors.New("-db and -key are needed")
	case x.after < -1:
		return errors.New("-after is the number of an entry, or -1")
	case x.syslog != "" && x.to != "":
		return errors.New("the entries go to -o or to -syslog")
	case x.syslog == "" && x.ca != "":
		return errors.New("-ca is of -syslog")
	}
	_, err := printer(io.Discard, x.format)
	if err == nil && x.syslog != "" {
		_, err = auditout.ParseFormat(x.format) // text is for people
	}
	return err
}

// open returns where the entries go, and what ends that.
func (x *exporting) open(out io.Writer) (sink auditout.Sink, end func() error, err error) {
	end = func() error { return nil }
	switch {
	case x.syslog != "":
		sink, err = x.server()
		return sink, end, err
	case x.to != "":
		file, err := os.OpenFile(x.to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, nil, err
		}
		out, end = file, func() error { return errors.Join(file.Sync(), file.Close()) }
	}
	sink, err = printer(out, x.format)
	return sink, end, err
}

func (x *exporting) server() (auditout.Sink, error) {
	f, err := auditout.ParseFormat(x.format)
	if err != nil {
		return nil, err
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if x.ca != "" {
		text, err := os.ReadFile(x.ca)
		if err != nil {
			return nil, err
		}
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", plain(x.ca))
		}
	}
	return auditout.NewSyslog(x.syslog, trust, f)
}

func exportJournal(c *call) int {
	x := exporting{journal: c.journalFlags()}
	c.flags.StringVar(&x.key, "key", "", keyUsage)
	c.flags.StringVar(&x.tenant, "tenant", "", "entries of this `tenant` only")
	c.flags.Int64Var(&x.after, "after", -1, "entries after `N` only; -1: from the first")
	c.flags.StringVar(&x.format, "format", auditout.JSON.String(), formatUsage)
	c.flags.StringVar(&x.to, "o", "", "new `file` for the entries; without it the output")
	c.flags.StringVar(&x.syslog, "syslog", "", "`host:port` of a log server to which the entries are sent")
	c.flags.StringVar(&x.ca, "ca", "", "`file` with the certificates that vouch for the log server; without it the system's")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if err := x.check(); err != nil {
		return c.misused("%v", err)
	}
	verifier, err := readVerifier(x.key)
	if err != nil {
		return c.fail(unable, "the verifying key: %v", err)
	}
	store, done, code, ok := x.journal.open(c)
	if !ok {
		return code
	}
	defer done() //nolint:errcheck // nothing was written
	var query *audit.Query
	if x.tenant != "" {
		query = &audit.Query{Tenant: x.tenant}
	}
	sink, end, err := x.open(c.out)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	if err = c.tellPruned(store, x.after+1); err == nil {
		code, err = c.export(store, verifier, query, x.after, sink)
	}
	if err := errors.Join(err, end()); err != nil {
		return c.fail(failure(err), "%v", err)
	}
	return code
}

// exportBatch is how many entries are handed over at once: of 64 KiB each at most.
const exportBatch = 128

// export hands over the entries after one.
func (c *call) export(store audit.Store, v note.Verifier, q *audit.Query, after int64, to auditout.Sink) (code int, err error) {
	head, err := store.Head(c)
	if _, broken := errors.AsType[*audit.BrokenError](err); err != nil && !broken {
		return code, err
	}
	sent, batch := 0, make([]audit.Entry, 0, exportBatch)
	defer func() {
		if err == nil {
			after = max(after, head.Size-1) // also if the last ones are of other tenants
		}
		fmt.Fprintf(c.err, "entries handed over: %d; go on with -after %d\n", sent, after)
	}()
	send := func() error {
		if err := c.print(to, batch...); err != nil {
			return err
		}
		if sent += len(batch); len(batch) > 0 {
			after = batch[len(batch)-1].Seq
		}
		batch = batch[:0]
		return nil
	}
	for entry, err := range audit.ReadStore(c, store, v, q, after) {
		switch broken, ok := errors.AsType[*audit.BrokenError](err); {
		case ok:
			code = c.fail(tampered, "%v", broken)
			continue
		case err != nil:
			return code, err
		}
		if batch = append(batch, entry); len(batch) < exportBatch {
			continue
		}
		if err := send(); err != nil {
			return code, err
		}
	}
	return code, errors.Join(c.Err(), send())
}

// tellPruned says which entries are gone, by what the journal says. Whether its key says so too is
// found out as they are read: if it does not, they are missing.
func (c *call) tellPruned(store audit.Store, next int64) error {
	pruner, ok := store.(audit.Pruner)
	if !ok {
		return nil
	}
	removed, err := pruner.Pruned(c)
	if err == nil && next < removed.Size {
		fmt.Fprintf(c.err, "entries %d to %d were pruned, by what the journal says\n", next, removed.Size-1)
	}
	return err
}

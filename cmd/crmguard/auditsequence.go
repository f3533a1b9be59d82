package main

import "fmt"

var auditSequence = command{
	name:  "audit sequence",
	args:  logArgs,
	about: "chain and sign what a CRM without the signing key records, until Ctrl-C",
	help: `Runs beside a CRM that records with audit.OpenInbox: takes its entries out of the inbox, chains
and signs them, and hands checkpoints to the anchors. The CRM then needs neither the signing key
nor the right to write the journal, so that whoever takes it over cannot rewrite what was chained.
Several may run; one of them works at a time. While none runs, entries wait in the inbox.

` + logHelp + `
Exit codes: 0 interrupted, and what was there is chained and signed; 2 not understood, 3 a
database or key cannot be used, 20 the journal was tampered with, and nothing was signed.
`,
	do: sequenceJournal,
}

func sequenceJournal(c *call) int {
	f := c.logFlags()
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if err := f.check(); err != nil {
		return c.misused("%v", err)
	}
	w, err := c.openLog(f)
	if err != nil {
		return c.fail(failure(err), "%v", err)
	}
	fmt.Fprintln(c.err, "chaining and signing; Ctrl-C ends it")
	<-c.Done()
	if err := w.close(); err != nil {
		return c.fail(failure(err), "%v", err)
	}
	return good
}

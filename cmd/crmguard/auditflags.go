package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
)

// Exit codes of verdicts. Below tampered nothing says that somebody tampered with the
// journal; from there on something does.
const (
	unanchored  = 10
	anchorStale = 11
	pruned      = 12
	tampered    = 20 // broken
	truncated   = 21
	forked      = 22
	restored    = 23
)

// verdictCodes has all verdicts but those that cannot be given.
var verdictCodes = map[audit.Verdict]int{
	audit.Intact: good, audit.Pruned: pruned, audit.Unanchored: unanchored, audit.AnchorStale: anchorStale,
	audit.Broken: tampered, audit.Truncated: truncated, audit.Forked: forked, audit.Restored: restored,
}

// verdictCode is what a command ends with that came to a verdict.
func verdictCode(v audit.Verdict) int {
	if code, ok := verdictCodes[v]; ok {
		return code
	}
	return unable
}

// failure is the exit code of an error while a journal was read.
func failure(err error) int {
	if _, ok := errors.AsType[*audit.BrokenError](err); ok {
		return tampered
	}
	if wrong, ok := errors.AsType[*audit.VerifyError](err); ok {
		return verdictCode(wrong.Report.Verdict)
	}
	return unable
}

// journalFlags say where the journal is.
type journalFlags struct{ db, prefix string }

func (c *call) journalFlags() *journalFlags {
	f := &journalFlags{}
	c.flags.StringVar(&f.db, "db", "", "`database` of the journal, or the folder of audit.OpenFile")
	c.flags.StringVar(&f.prefix, "prefix", "", "`prefix` of the tables, if the CRM has chosen one")
	return f
}

// keyUsage is of the key that a journal is judged with. It never comes from the journal.
const keyUsage = "`file` with the verifying key, usually journal.key.pub, or the key itself"

// open opens the journal; if ok is false the call ends with code.
func (f *journalFlags) open(c *call) (store audit.Store, done func() error, code int, ok bool) {
	store, done, err := openJournal(c, f.db, f.prefix)
	if err != nil {
		return nil, nil, c.fail(failure(err), "the journal cannot be opened: %v", err), false
	}
	return store, done, good, true
}

// readVerifier reads a verifying key: name+hash+key, or a file that holds one.
func readVerifier(given string) (note.Verifier, error) {
	if strings.HasPrefix(given, "PRIVATE+KEY+") {
		return nil, errors.New("that is a signing key, which belongs on no other machine than the CRM's, and on no command line: make a new one")
	}
	if verifier, err := note.NewVerifier(given); err == nil {
		return verifier, nil
	}
	text, err := os.ReadFile(given) //nolint:gosec // the caller's own path
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(text), "PRIVATE+KEY+") {
		return nil, fmt.Errorf("%s is a signing key, which belongs on no other machine than the CRM's: give the .pub file beside it", plain(given))
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not one: give the .pub file that was made with the signing key", plain(given)) // the cause might quote it
	}
	return verifier, nil
}

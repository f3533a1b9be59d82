package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
)

var auditVerify = command{
	name:  "audit verify",
	args:  "-db DATABASE|FOLDER -key FILE.pub [-checkpoint FILE] [-save FILE] [-prefix P] [-json]",
	about: "verify a journal, wherever its database or folder is",
	help: `Reads a whole journal and recomputes everything, with a verifying key that you keep.
Compared with a checkpoint from an earlier day, kept where whoever writes the database
cannot write, all entries that it covers are proved: the verdict is "intact". Without
one the best verdict is "unanchored". Each day:

  crmguard audit verify -db … -key journal.key.pub -checkpoint pin -save pin

Nothing in the journal is changed; the CRM may use a database meanwhile, a folder not.
The database's role needs SELECT on the tables of the journal and no more.

` + databaseHelp + `
Exit codes: 0 as it was written, 1 tampered with, 2 not understood, 3 cannot be verified.
`,
	do: verifyJournal,
}

func verifyJournal(c *call) int {
	name := c.flags.String("db", "", "`database` of the journal, or the folder of audit.OpenFile")
	key := c.flags.String("key", "", "`file` with the verifying key, usually journal.key.pub")
	checkpoint := c.flags.String("checkpoint", "", "`file` with a checkpoint that was kept elsewhere")
	save := c.flags.String("save", "", "`file` for the newest checkpoint, written if all is well")
	prefix := c.flags.String("prefix", "", "`prefix` of the tables, if the CRM has chosen one")
	asJSON := c.flags.Bool("json", false, "print the report as JSON")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if *name == "" || *key == "" {
		return c.misused("-db and -key are needed")
	}
	if err := replaceable(*save, *checkpoint); err != nil {
		return c.misused("%v", err)
	}
	verifier, err := readVerifier(*key)
	if err != nil {
		return c.fail(unable, "the verifying key: %v", err)
	}
	pin, err := readPin(*checkpoint)
	if err != nil {
		return c.fail(unable, "the checkpoint: %v", err)
	}
	store, closeStore, err := openJournal(c, *name, *prefix)
	if broken, ok := errors.AsType[*audit.BrokenError](err); ok {
		return c.fail(bad, "%v", broken)
	}
	if err != nil {
		return c.fail(unable, "the journal cannot be opened: %v", err)
	}
	defer closeStore() //nolint:errcheck // nothing was written
	shown := watch(store, c.err)
	report, err := audit.VerifyStore(c, shown, verifier, &audit.VerifyOptions{Kept: pin, AnchorAge: maxPinAge})
	shown.end()
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	return c.conclude(report, *save, *asJSON)
}

// conclude prints a report and saves its checkpoint.
func (c *call) conclude(r audit.Report, save string, asJSON bool) int {
	if asJSON {
		if err := printJSON(c.out, r); err != nil {
			return c.fail(unable, "%v", err)
		}
	} else {
		fmt.Fprintf(c.out, "%s: %s\nlog %s: %d entries, %d signed, %d proved by the checkpoint\n", r.Verdict, r.Detail, r.Log, r.Entries, r.Signed, r.Pinned)
	}
	code, next := judge(r)
	if next != "" && save == "" || code != good {
		fmt.Fprintf(c.err, "Next: %s\n", next)
	}
	switch {
	case save == "":
	case code != good:
		fmt.Fprintf(c.err, "%s was left as it is\n", plain(save))
	case r.Signed < r.Pinned:
		fmt.Fprintf(c.err, "%s was left as it is: it covers more than any checkpoint in the journal, from which later ones were removed\n", plain(save))
	default:
		if err := writeFile(save, r.Checkpoint); err != nil {
			return c.fail(unable, "save the checkpoint: %v", err)
		}
		fmt.Fprintf(c.err, "the checkpoint of %d entries is in %s: keep it where whoever writes the database cannot write\n", r.Signed, plain(save))
	}
	return code
}

// judge returns the exit code of a verdict, and what to do about it.
func judge(r audit.Report) (code int, next string) {
	switch r.Verdict {
	case audit.Intact, audit.Pruned:
		return good, ""
	case audit.Unanchored:
		return good, "keep a checkpoint elsewhere with -save FILE, and compare with it from then on, with -checkpoint FILE"
	case audit.AnchorStale:
		return unable, "compare with a checkpoint of the last two days: entries may have been cut off since this one was kept"
	case audit.Broken, audit.Truncated, audit.Forked:
		return bad, fmt.Sprintf("keep a copy of the database as it is, and find the last backup that still has entry %d as it was written", r.At)
	case audit.Restored:
		return bad, "find out who put another journal in its place, or which checkpoint and key belong to this one"
	}
	return unable, "see that -key is the key of this journal; if it is, let the CRM run until it has signed, and verify again"
}

func readVerifier(path string) (note.Verifier, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the caller's own path
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(text), "PRIVATE+KEY+") {
		return nil, fmt.Errorf("%s is a signing key, which belongs on no other machine than the CRM's: give the .pub file beside it", plain(path))
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not one: give the .pub file that was made with the signing key", plain(path)) // the cause might quote it
	}
	return verifier, nil
}

// maxPinAge is how old a checkpoint may be that is replaced each day.
const maxPinAge = 48 * time.Hour

func readPin(path string) ([]audit.Kept, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path) //nolint:gosec // the caller's own path
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, advised{err, "The first time leave -checkpoint out. If there was one, ask who removed it"}
	case err == nil && strings.TrimSpace(string(text)) == "":
		return nil, fmt.Errorf("%s is empty", plain(path)) // and would prove nothing
	case err != nil:
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return []audit.Kept{{Note: text, At: info.ModTime()}}, nil
}

// replaceable refuses to replace a checkpoint that the journal was not compared with:
// of a journal cut short the newest one is older.
func replaceable(save, checkpoint string) error {
	there, err := os.Stat(save)
	if save == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if pin, err := os.Stat(checkpoint); err == nil && os.SameFile(there, pin) {
		return nil
	}
	return fmt.Errorf("%s exists: give it as -checkpoint too, so that it is replaced only by one that continues it", plain(save))
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
)

var auditVerify = command{
	name:  "audit verify",
	args:  "-db DATABASE|FOLDER -key FILE.pub [-anchor FILE|DATABASE]… [-checkpoint FILE [-resume]] [-save FILE] [-prefix P] [-json]",
	about: "verify a journal, wherever its database or folder is",
	help: `Reads a whole journal and recomputes everything, with a verifying key that you keep.
Compared with what was kept where whoever writes the database cannot write, all entries
that it covers are proved, and the verdict is "intact": the CRM's own anchors, -anchor,
which are files or databases and whose newest checkpoint is at most two days old, or a
checkpoint from an earlier day. Without either the best verdict is "unanchored". Each day:

  crmguard audit verify -db … -key journal.key.pub -checkpoint pin -save pin

With -resume only what came after that checkpoint is read: an earlier entry that was
changed since then is found by a whole verification only, so have one each week.

Nothing in the journal is changed; the CRM may use a database meanwhile, a folder not.
The database's role needs SELECT on the tables of the journal and no more.

` + databaseHelp + `
Each verdict has its exit code; from 20 on somebody tampered with the journal:

   0  intact: as it was written, and what was kept outside says so too
   2  the command was not understood
   3  cannot verify: another key, no checkpoint, or what could not be read
  10  unanchored: as it was signed, but nothing outside vouches for it
  11  anchor stale: as it was signed, but what was kept outside is too old
  12  pruned: intact, without old entries that were removed by retention
  20  broken: an entry was changed, moved, damaged or removed
  21  truncated: entries were cut off from the end
  22  forked: it is not the journal that was signed
  23  restored: it is another journal of the same key
`,
	do: verifyJournal,
}

// verifying are the arguments of one verification.
type verifying struct {
	journal               *journalFlags
	key, checkpoint, save string
	anchors               []string
	resume, json          bool
}

func (v *verifying) check() error {
	switch {
	case v.journal.db == "" || v.key == "":
		return errors.New("-db and -key are needed")
	case v.resume && v.checkpoint == "":
		return errors.New("-resume begins where -checkpoint ended: give both")
	}
	return replaceable(v.save, v.checkpoint)
}

func verifyJournal(c *call) int {
	v := verifying{journal: c.journalFlags()}
	c.flags.StringVar(&v.key, "key", "", keyUsage)
	c.flags.Func("anchor", "`file` or database with the checkpoints that the CRM keeps outside; may be given several times", func(name string) error {
		v.anchors = append(v.anchors, name)
		return nil
	})
	c.flags.StringVar(&v.checkpoint, "checkpoint", "", "`file` with a checkpoint that was kept elsewhere")
	c.flags.BoolVar(&v.resume, "resume", false, "read only what came after that checkpoint")
	c.flags.StringVar(&v.save, "save", "", "`file` for the newest checkpoint, written if all is well")
	c.flags.BoolVar(&v.json, "json", false, "print the report as JSON")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if err := v.check(); err != nil {
		return c.misused("%v", err)
	}
	verifier, err := readVerifier(v.key)
	if err != nil {
		return c.fail(unable, "the verifying key: %v", err)
	}
	kept, err := readPin(v.checkpoint)
	if err != nil {
		return c.fail(unable, "the checkpoint: %v", err)
	}
	teller := c.teller()
	teller.later("verifying")
	o := &audit.VerifyOptions{Kept: kept, AnchorAge: maxPinAge, Progress: func(done, total int64) {
		teller.tell("verifying", fmt.Sprintf("%d of %d entries", done, total))
	}}
	if v.resume {
		o.Resume = string(kept[0].Note)
	}
	for _, name := range v.anchors {
		anchor, done, err := c.openAnchor(name, verifier, v.journal.prefix)
		if err != nil {
			return c.fail(unable, "an anchor cannot be opened: %v", err) // its name may hold a password
		}
		defer done() //nolint:errcheck // nothing was written
		o.Anchors = append(o.Anchors, anchor)
	}
	store, done, code, ok := v.journal.open(c)
	if !ok {
		return code
	}
	defer done() //nolint:errcheck // nothing was written
	report, err := audit.VerifyStore(c, store, verifier, o)
	teller.end()
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	return c.conclude(report, v.save, v.json)
}

// conclude prints a report and saves its checkpoint.
func (c *call) conclude(r audit.Report, save string, asJSON bool) int {
	if asJSON {
		if err := printJSON(c.out, r); err != nil {
			return c.fail(unable, "%v", err)
		}
	} else {
		fmt.Fprintf(c.out, "%s: %s\nlog %s: %d entries, %d signed, %d proved by what was kept outside", r.Verdict, plain(r.Detail), r.Log, r.Entries, r.Signed, r.Pinned)
		if r.From > 0 {
			fmt.Fprintf(c.out, ", read from entry %d on", r.From)
		}
		fmt.Fprintln(c.out)
	}
	code, next := judge(r)
	if next != "" && (save == "" || !r.OK()) {
		fmt.Fprintf(c.err, "Next: %s\n", next)
	}
	switch {
	case save == "":
	case !r.OK():
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
	code = verdictCode(r.Verdict)
	switch r.Verdict {
	case audit.Intact, audit.Pruned:
	case audit.Unanchored:
		next = "keep a checkpoint elsewhere with -save FILE, and compare with it from then on, with -checkpoint FILE; or give the CRM an anchor"
	case audit.AnchorStale:
		next = "compare with a checkpoint of the last two days: entries may have been cut off since this one was kept"
	case audit.Broken, audit.Truncated, audit.Forked:
		next = fmt.Sprintf("keep a copy of the database as it is, and find the last backup that still has entry %d as it was written", r.At)
	case audit.Restored:
		next = "find out who put another journal in its place, or which checkpoint and key belong to this one"
	default:
		next = "see that -key is the key of this journal; if it is, let the CRM run until it has signed, and verify again"
	}
	return code, next
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

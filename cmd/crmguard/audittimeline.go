package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
)

// readingHelp is what commands say that print entries.
const readingHelp = `This looks past the CRM into its database, and so makes no entry that somebody looked: the
database's own log has to. It does not verify the journal: have that done before you rely on it.
`

var auditTimeline = command{
	name:  "audit timeline",
	args:  "-db DATABASE|FOLDER -tenant T [-person ID] [-record KIND/ID] [-client ID] [-action A] [-outcome O] [-addr IP] [-from TIME] [-to TIME] [-n N] [-format FORMAT] [-prefix P]",
	about: "print what happened to a record or client, or what a person did",
	help: `Prints the entries of a tenant's journal that match all flags, newest first, a line each: number,
time, tenant, who, what they did to what, and how it ended. Private values are sealed, and only named.

` + readingHelp + `
` + databaseHelp + `
Exit codes: 0 printed, even if nothing matches, 2 not understood, 3 could not be read, 20 an entry
was tampered with and is not shown.
`,
	do: showTimeline,
}

// timelinePage is how many entries are read at once.
const timelinePage = 500

func showTimeline(c *call) int {
	f, asked := c.journalFlags(), c.queryFlags()
	n := c.flags.Int("n", 0, "at most `N` entries; 0: all")
	format := c.flags.String("format", "text", formatUsage)
	var out auditout.Sink
	store, q, done, code, ok := c.openAsked(f, asked, func() (err error) {
		out, err = printer(c.out, *format)
		return err
	})
	if !ok {
		return code
	}
	defer done()                             //nolint:errcheck // nothing was written
	if _, err := store.Head(c); err != nil { // of a folder nothing is read beyond damage
		if code = c.fail(failure(err), "%v", err); code != tampered {
			return code
		}
	}
	for shown := 0; ; {
		q.Limit = timelinePage
		if *n > 0 {
			q.Limit = min(q.Limit, *n-shown)
		}
		page, err := audit.FindStore(c, store, q)
		if broken, ok := errors.AsType[*audit.BrokenError](err); ok {
			code = c.fail(tampered, "%v", broken) // the others are shown
		} else if err != nil {
			return c.fail(unable, "%v", err)
		}
		if err := c.print(out, page.Entries...); err != nil {
			return c.fail(unable, "%v", err)
		}
		shown += len(page.Entries)
		if q.Before = page.Next; page.Next == 0 || *n > 0 && shown >= *n {
			return code
		}
	}
}

// openAsked reads the flags of a command that prints what matches a query, has the others checked,
// and opens the journal.
func (c *call) openAsked(f *journalFlags, asked *queryFlags, check func() error) (store audit.Store, q audit.Query, done func() error, code int, ok bool) {
	if _, code, ok = c.parse(0); !ok {
		return nil, q, nil, code, false
	}
	q, err := asked.query()
	if f.db == "" {
		err = errors.New("-db is needed")
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		return nil, q, nil, c.misused("%v", err), false
	}
	store, done, code, ok = f.open(c)
	return store, q, done, code, ok
}

var auditTail = command{
	name:  "audit tail",
	args:  "-db DATABASE|FOLDER -key FILE.pub -tenant T [-person ID] … [-n N] [-format FORMAT] [-prefix P]",
	about: "print entries as they are made, until Ctrl-C",
	help: `Prints the newest entries of a tenant's journal that match all flags, oldest first, then each new
one within a second or two after it was chained, in order, until it is interrupted. An entry
that was tampered with is told on the error output, once. Damage that nothing signed covers yet
is waited for: somebody may have put it in front of entries that are still to come.

` + readingHelp + `
` + databaseHelp + `
Exit codes: 0 interrupted, 2 not understood, 3 could not be read, 20 interrupted, and an entry was
tampered with.
`,
	do: followJournal,
}

func followJournal(c *call) int {
	f, asked := c.journalFlags(), c.queryFlags()
	key := c.flags.String("key", "", keyUsage)
	n := c.flags.Int("n", 10, fmt.Sprintf("begin with the newest `N` entries, at most %d", timelinePage))
	format := c.flags.String("format", "text", formatUsage)
	var out auditout.Sink
	store, q, done, code, ok := c.openAsked(f, asked, func() (err error) {
		if *key == "" {
			return errors.New("-key is needed")
		}
		if *n < 0 || *n > timelinePage {
			return fmt.Errorf("-n is from 0 to %d", timelinePage)
		}
		out, err = printer(c.out, *format)
		return err
	})
	if !ok {
		return code
	}
	defer done() //nolint:errcheck // nothing was written
	verifier, err := readVerifier(*key)
	if err != nil {
		return c.fail(unable, "the verifying key: %v", err)
	}
	head, err := store.Head(c)
	if err != nil {
		if code = c.fail(failure(err), "%v", err); code != tampered {
			return code
		}
	}
	if *n > 0 && head.Size > 0 {
		q := q
		q.Before, q.Limit = head.Size, *n // what comes meanwhile follows
		page, err := audit.FindStore(c, store, q)
		if broken, ok := errors.AsType[*audit.BrokenError](err); ok {
			code = c.fail(tampered, "%v", broken)
		} else if err != nil {
			return c.fail(unable, "%v", err)
		}
		slices.Reverse(page.Entries)
		if err := c.print(out, page.Entries...); err != nil {
			return c.fail(unable, "%v", err)
		}
	}
	for entry, err := range audit.FollowStore(c, store, verifier, &q, head.Size-1) {
		if broken, ok := errors.AsType[*audit.BrokenError](err); ok {
			code = c.fail(tampered, "%v", broken)
			continue
		}
		if err == nil {
			err = c.print(out, entry)
		}
		if c.Err() != nil { // what was interrupted has not failed
			break
		}
		if err != nil {
			return c.fail(unable, "%v", err)
		}
	}
	return code
}

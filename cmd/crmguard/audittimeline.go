package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/crmguard/crmguard/audit"
)

// readingHelp is what commands say that print entries.
const readingHelp = `This looks past the CRM into its database, and so makes no entry that somebody looked: the
database's own log has to. It does not verify the journal: have that done before you rely on it.
`

var auditTimeline = command{
	name:  "audit timeline",
	args:  "-db DATABASE|FOLDER -tenant T [-person ID] [-record KIND/ID] [-client ID] [-action A] [-outcome O] [-addr IP] [-from TIME] [-to TIME] [-n N] [-prefix P] [-json]",
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
	asJSON := c.flags.Bool("json", false, "print JSON Lines")
	store, q, done, code, ok := c.openAsked(f, asked)
	if !ok {
		return code
	}
	defer done() //nolint:errcheck // nothing was written
	printer := printer(c.out, *asJSON)
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
		for i := range page.Entries {
			if err := printer(&page.Entries[i]); err != nil {
				return c.fail(unable, "%v", err)
			}
		}
		shown += len(page.Entries)
		if q.Before = page.Next; page.Next == 0 || *n > 0 && shown >= *n {
			return code
		}
	}
}

// openAsked reads the flags of a command that prints what matches a query, and opens the journal.
func (c *call) openAsked(f *journalFlags, asked *queryFlags) (store audit.Store, q audit.Query, done func() error, code int, ok bool) {
	if _, code, ok = c.parse(0); !ok {
		return nil, q, nil, code, false
	}
	q, err := asked.query()
	if f.db == "" {
		err = errors.New("-db is needed")
	}
	if err != nil {
		return nil, q, nil, c.misused("%v", err), false
	}
	store, done, code, ok = f.open(c)
	return store, q, done, code, ok
}

// printer prints entries, as JSON Lines or for people.
func printer(w io.Writer, asJSON bool) func(*audit.Entry) error {
	encoder := json.NewEncoder(w)
	return func(e *audit.Entry) error {
		line := lineOf(e)
		if asJSON {
			return encoder.Encode(line)
		}
		_, err := fmt.Fprintln(w, &line)
		return err
	}
}

var auditTail = command{
	name:  "audit tail",
	args:  "-db DATABASE|FOLDER -tenant T [-person ID] … [-n N] [-prefix P] [-json]",
	about: "print entries as they are made, until Ctrl-C",
	help: `Prints the newest entries of a tenant's journal that match all flags, oldest first, then each new
one within a second or two after it was chained, in order, until it is interrupted. An entry
that was tampered with is told on the error output, once.

` + readingHelp + `
` + databaseHelp + `
Exit codes: 0 interrupted, 2 not understood, 3 could not be read, 20 interrupted, and an entry was
tampered with.
`,
	do: followJournal,
}

// tailEvery is how often new entries are looked for.
const tailEvery = time.Second

func followJournal(c *call) int {
	f, asked := c.journalFlags(), c.queryFlags()
	n := c.flags.Int("n", 10, "begin with the newest `N` entries")
	asJSON := c.flags.Bool("json", false, "print JSON Lines")
	store, q, done, code, ok := c.openAsked(f, asked)
	if !ok {
		return code
	}
	defer done() //nolint:errcheck // nothing was written
	t := tail{call: c, store: store, q: q, last: -1, print: printer(c.out, *asJSON)}
	wait := time.NewTicker(tailEvery)
	defer wait.Stop()
	for limit := max(*n, 0); ; limit = -1 {
		if err := t.look(limit); err != nil && c.Err() == nil {
			return c.fail(unable, "%v", err)
		}
		select {
		case <-c.Done():
			return t.code
		case <-wait.C:
		}
	}
}

// tail is how far a follower has come.
type tail struct {
	*call
	store audit.Store
	q     audit.Query
	print func(*audit.Entry) error
	last  int64 // number of the last entry that was looked at
	told  int64 // number of the last damaged entry that was told of, and one
	code  int
}

// look prints what is new, at most limit entries of it unless that is negative.
func (t *tail) look(limit int) error {
	head, err := t.store.Head(t)
	if err != nil || head.Size-1 == t.last {
		return err
	}
	q := t.q
	q.Before, q.Limit = head.Size, timelinePage // what comes meanwhile is for the next look
	var fresh []audit.Entry
	for more := head.Size > 0; more; {
		page, err := audit.FindStore(t, t.store, q)
		if broken, ok := errors.AsType[*audit.BrokenError](err); ok {
			if broken.Seq > t.last && broken.Seq >= t.told {
				t.told, t.code = broken.Seq+1, t.fail(tampered, "%v", broken)
			}
		} else if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if more = e.Seq > t.last && (limit < 0 || len(fresh) < limit); !more {
				break
			}
			fresh = append(fresh, e)
		}
		q.Before = page.Next
		more = more && page.Next > t.last+1 && limit != 0
	}
	for _, e := range slices.Backward(fresh) {
		if err := t.print(&e); err != nil {
			return err
		}
	}
	t.last = head.Size - 1
	return nil
}

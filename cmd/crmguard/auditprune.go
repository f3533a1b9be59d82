package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

var auditPrune = command{
	name:  "audit prune",
	args:  "-before TIME [-yes] " + logArgs,
	about: "remove old entries whose time is over, so that the rest still verifies",
	help: `Verifies the journal and removes the entries that were recorded before a time, from the oldest
on, 256 at a time, as far as no hold keeps one of them. The signing key states what was removed;
what stays verifies and is proved as before, and "crmguard audit verify" says "pruned". There is
no way back. On a terminal it asks, elsewhere -yes is needed.

` + logHelp + `
Exit codes: 0 removed, or there was nothing to remove; 1 not confirmed, 2 not understood, 3 not
done, 20 the journal was tampered with, and nothing was removed.
`,
	do: pruneJournal,
}

func pruneJournal(c *call) int {
	f := c.logFlags()
	var before time.Time
	c.flags.Var(&moment{&before}, "before", "`time`, such as 2026-01-31: entries recorded before it")
	yes := c.flags.Bool("yes", false, "do not ask")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	err := f.check()
	switch {
	case err != nil:
		return c.misused("%v", err)
	case before.IsZero():
		return c.misused("-before is needed")
	case !*yes && !isTerminal(c.in):
		return c.misused("-yes is needed where nobody can be asked")
	}
	if !*yes {
		fmt.Fprintf(c.err, "Remove the entries recorded before %s for ever? Type prune to go on: ", stamp(before))
		if line, err := c.readLine(); err != nil || string(line) != "prune" {
			return c.fail(bad, "%v: nothing was removed", errUnconfirmed)
		}
	}
	return c.withLog(f, func(w *writing) error {
		removed, err := w.Prune(crmguard.System(c, operator, "audit prune"), before)
		if err != nil {
			return err
		}
		if removed.From == removed.To {
			fmt.Fprintln(c.out, "there was nothing to remove")
		} else {
			fmt.Fprintf(c.out, "removed: entries %d to %d\n", removed.From, removed.To-1)
		}
		if removed.Held != nil {
			fmt.Fprintf(c.out, "kept: entry %d and what came after it, by the hold %s of tenant %s\n", removed.HeldAt, plain(removed.Held.ID), plain(removed.Held.Tenant))
		}
		return nil
	})
}

// operator is the tenant of whoever acts for all tenants.
const operator = "operator"

// withLog does something with a journal that is open to write.
func (c *call) withLog(f *logFlags, do func(*writing) error) int {
	w, err := c.openLog(f)
	if err != nil {
		return c.fail(failure(err), "%v", err)
	}
	err = do(w)
	if err := errors.Join(err, w.close()); err != nil {
		return c.fail(failure(err), "%v", err)
	}
	return good
}

var auditHold = command{
	name:  "audit hold",
	args:  "[-tenant T -id ID [-release] [-client ID] [-person ID] [-record KIND/ID] -reason CODE] " + logArgs,
	about: "keep entries from being pruned, for a lawsuit or an inquiry; or list what does",
	help: `Places a hold: entries of the tenant that match, all of them if nothing else is given, are kept by
"crmguard audit prune" until the hold is released, with -release. An id is used once. Holds are
entries of the journal itself. Without -id it lists the holds in force, of all tenants.

` + logHelp + `
Exit codes: 0 done, 2 not understood, 3 not done, 20 the journal was tampered with.
`,
	do: holdEntries,
}

func holdEntries(c *call) int {
	f := c.logFlags()
	var h audit.Hold
	c.flags.StringVar(&h.ID, "id", "", "`id` of the hold, such as the number of the case")
	c.flags.StringVar(&h.Tenant, "tenant", "", "`tenant` whose entries are kept")
	c.flags.StringVar(&h.Client, "client", "", "`id` of a client about whom something is sealed in the entry")
	c.flags.StringVar(&h.Subject, "person", "", "`id` of who acted")
	record := c.flags.String("record", "", "`KIND/ID` of what was acted on, or KIND alone")
	c.flags.StringVar(&h.Reason, "reason", "", "`code` of the reason")
	release := c.flags.Bool("release", false, "end the hold")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	h.Kind, h.Record = cutRecord(*record)
	err := f.check()
	switch {
	case err != nil:
		return c.misused("%v", err)
	case h.ID == "" && (h != (audit.Hold{}) || *release):
		return c.misused("-id is needed")
	case h.ID != "" && (h.Tenant == "" || h.Reason == ""):
		return c.misused("-tenant and -reason are needed")
	}
	return c.withLog(f, func(w *writing) error {
		ctx := crmguard.System(c, h.Tenant, "audit hold")
		switch {
		case *release:
			return w.Release(ctx, h.ID, h.Reason)
		case h.ID != "":
			return w.Hold(ctx, h)
		}
		holds, err := w.Holds(c)
		for _, h := range holds {
			fmt.Fprintf(c.out, "%s  %s", plain(h.Tenant), plain(h.ID))
			for _, part := range [][2]string{{"client", h.Client}, {"person", h.Subject}, {"kind", h.Kind}, {"record", h.Record}, {"reason", h.Reason}} {
				if part[1] != "" {
					fmt.Fprintf(c.out, "  %s=%s", part[0], plain(part[1]))
				}
			}
			fmt.Fprintln(c.out)
		}
		return err
	})
}

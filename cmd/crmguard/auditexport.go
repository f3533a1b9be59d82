package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/crmguard/crmguard/audit"
)

var auditExport = command{
	name:  "audit export",
	args:  "-db DATABASE|FOLDER [-tenant T] [-after N] [-o FILE] [-prefix P]",
	about: "print all entries of a journal as JSON Lines, for other programs",
	help: `Prints all entries, or those of one tenant, oldest first, each as one line of JSON. The last
line on the error output names the number to go on after another day, with -after. Private
values are sealed, and only named.

` + readingHelp + `
` + databaseHelp + `
Exit codes: 0 printed, 2 not understood, 3 could not be read, 20 an entry was tampered with and was
left out, or entries are missing.
`,
	do: exportJournal,
}

// exportPage is how many rows are read at once: of 64 KiB each at most.
const exportPage = 256

func exportJournal(c *call) int {
	f := c.journalFlags()
	tenant := c.flags.String("tenant", "", "entries of this `tenant` only")
	after := c.flags.Int64("after", -1, "entries after `N` only; -1: from the first")
	to := c.flags.String("o", "", "new `file` for the entries; without it the output")
	_, code, ok := c.parse(0)
	switch {
	case !ok:
		return code
	case f.db == "":
		return c.misused("-db is needed")
	case *after < -1:
		return c.misused("-after is the number of an entry, or -1")
	}
	store, done, code, ok := f.open(c)
	if !ok {
		return code
	}
	defer done() //nolint:errcheck // nothing was written
	if *to == "" {
		return c.export(store, *tenant, *after+1, c.out)
	}
	file, err := os.OpenFile(*to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	code = c.export(store, *tenant, *after+1, file)
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return c.fail(unable, "%v", err)
	}
	return code
}

// export prints entries from one on.
func (c *call) export(store audit.Store, tenant string, next int64, w io.Writer) (code int) {
	out := bufio.NewWriterSize(w, 1<<20)
	printed, print := 0, printer(out, true)
	if pruner, ok := store.(audit.Pruner); ok {
		removed, err := pruner.Pruned(c)
		if err != nil {
			return c.fail(failure(err), "%v", err)
		}
		if next < removed.Size { // whether the key says so is for audit verify to find out
			fmt.Fprintf(c.err, "entries %d to %d were pruned, by what the journal says\n", next, removed.Size-1)
			next = removed.Size
		}
	}
	for {
		rows, err := store.Read(c, next, exportPage)
		if broken, ok := errors.AsType[*audit.BrokenError](err); ok && broken.Seq >= next {
			next, code = broken.Seq+1, c.fail(tampered, "%v", broken)
			continue
		}
		if err != nil {
			return c.fail(unable, "%v", err)
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			if rows[i].Seq != next {
				code = c.fail(tampered, "entries %d to %d are missing", next, rows[i].Seq-1)
			}
			next = rows[i].Seq + 1
			entry, err := rows[i].Entry()
			if err != nil {
				code = c.fail(tampered, "%v", err)
				continue
			}
			if tenant != "" && entry.Tenant != tenant {
				continue
			}
			if err := print(&entry); err != nil {
				return c.fail(unable, "%v", err)
			}
			printed++
		}
	}
	if err := out.Flush(); err != nil {
		return c.fail(unable, "%v", err)
	}
	fmt.Fprintf(c.err, "entries printed: %d; go on with -after %d\n", printed, next-1)
	return code
}

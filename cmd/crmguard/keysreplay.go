package main

import (
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/encrypt"
)

var keysReplay = command{
	name:  "keys replay",
	args:  "FILE|- … -store DATABASE -kek FILE -db DATABASE|-no-index [-o FILE] [flags]",
	about: "erase again whom a restored copy of the key store has brought back",
	help: `A copy of the key store from before an erasure has the client's key again. So after every
restore, before the CRM is started:

  1. Restore the key store, and the KEK file as it was when that copy was made.
  2. crmguard keys replay ledger -store … -kek … -db … -o ledger
  3. crmguard keys erase -finish …   if it says that some are closing
  4. crmguard keys turn …            so that the copy that was restored opens nothing any more
  5. Start the CRM.

FILE is the ledger: all receipts that were ever printed, one a line, in any order. Those that
this key store has not issued, or that somebody has changed, are refused and named; the
others are carried out all the same. It may be called again, and with receipts of clients
that are erased already. The new receipts go to the output or to the end of the -o file.

` + keysHelp + `
Exit codes: 0 all were carried out, 1 some are no receipts of this key store, 2 not understood,
3 not possible now, or not all of it.
`,
	do: replayReceipts,
}

func replayReceipts(c *call) int {
	f := c.keyFlags()
	f.indexFlags(c)
	f.receiptFlags(c)
	name := c.flags.String("o", "", "`file` that the new receipts are added to")
	files, code, ok := c.parseAny()
	if !ok {
		return code
	}
	if err := errors.Join(f.check(), f.checkIndex()); err != nil {
		return c.misused("%v", err)
	}
	if len(files) == 0 {
		return c.misused("no file of receipts is named")
	}
	entries, err := c.readLedgers(files)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	out, err := c.openLedger(*name)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer out.close() //nolint:errcheck // each line was synced
	keys, err := c.openKeys(f, true)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer keys.close()
	return c.replayAll(keys, entries, out)
}

func (c *call) replayAll(keys *opened, entries []entry, out *ledger) int {
	code := good
	var done, closing, refused int
	shown := c.teller()
	for i, e := range entries {
		shown.tell("replaying", fmt.Sprintf("%d of %s", i, count(len(entries), "receipt")))
		receipts, err := keys.Replay(c, e.document)
		switch {
		case errors.Is(err, encrypt.ErrReceipt):
			refused++
			shown.end()
			fmt.Fprintf(c.err, "%s: REFUSED: no receipt of this key store, or changed\n", e.where)
			continue
		case err != nil:
			shown.end()
			return c.fail(unable, "%s: %v\nWhat stands before it was carried out; call this again", e.where, advise(err))
		}
		if err := out.add(receipts[0]); err != nil {
			shown.end()
			return c.fail(unable, "%s was carried out, and its new receipt is lost: %v\nCall this again", e.where, err)
		}
		if done++; receipts[0].State != encrypt.Destroyed.String() {
			closing++
		}
	}
	shown.end()
	fmt.Fprintf(c.err, "carried out: %s, refused: %d\n", count(done, "receipt"), refused)
	if refused > 0 {
		code = bad
		fmt.Fprintln(c.err, "Next: look at the lines refused. Is it the ledger of this key store? Whom a changed line was about is erased with crmguard keys erase")
	}
	if closing > 0 {
		fmt.Fprintln(c.err, "Next: some clients are closing; crmguard keys erase -finish destroys their keys")
	}
	fmt.Fprintln(c.err, "Next: crmguard keys turn, so that the copy that was restored opens nothing any more")
	return code
}

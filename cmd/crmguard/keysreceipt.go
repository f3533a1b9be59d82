package main

import (
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

var keysReceipt = command{
	name:  "keys receipt",
	args:  "-store DATABASE -kek FILE (FILE|- … | -tenant T -client C [-o FILE]) [flags]",
	about: "check receipts of erasures, or print one as things stand now",
	help: `Given files, it says of each receipt in them, one a line, whether this key store has issued
it and nobody has changed a byte since, and what it says. That is about the paper: whether
the client is still erased, say after a restore, tells the second form.

With -tenant and -client it prints the receipt of an erasure as it is now. After the key was
destroyed it has the dates after which nobody can read what is in backups; they become
earlier by crmguard keys turn. -retention and -index-life are the CRM's, or the dates are
wrong. It changes nothing.

` + keysHelp + `
Exit codes: 0 all hold, 1 one does not hold, or nobody has ordered the erasure, 2 not understood, 3 could not be found out.
`,
	do: checkReceipts,
}

func checkReceipts(c *call) int {
	f := c.keyFlags()
	f.receiptFlags(c)
	tenant := c.flags.String("tenant", "", "`tenant` of the client")
	client := c.flags.String("client", "", "`id` of the client")
	name := c.flags.String("o", "", "`file` that the receipt is added to")
	files, code, ok := c.parseAny()
	if !ok {
		return code
	}
	if err := f.check(); err != nil {
		return c.misused("%v", err)
	}
	named := *tenant != "" && *client != ""
	switch {
	case len(files) > 0 && (*tenant != "" || *client != "" || *name != ""):
		return c.misused("give files to check, or -tenant and -client to print")
	case len(files) == 0 && !named:
		return c.misused("-tenant and -client are needed, or files to check")
	}
	entries, err := c.readLedgers(files)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	keys, err := c.openKeys(f, false)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer keys.close()
	if len(files) == 0 {
		return c.printReceipt(keys, *tenant, *client, *name)
	}
	for _, e := range entries {
		receipt, err := keys.CheckReceipt(crmguard.System(c, e.tenant, "keys receipt"), e.document)
		switch {
		case errors.Is(err, encrypt.ErrReceipt) || e.tenant == "":
			code = bad
			fmt.Fprintf(c.out, "%s: DOES NOT HOLD: no receipt of this key store, or changed\n", e.where)
		case err != nil:
			return c.fail(unable, "%s: %v", e.where, advise(err))
		default:
			fmt.Fprintf(c.out, "%s: holds: client %s of tenant %s %s\n", e.where, plain(receipt.Client), plain(receipt.Tenant), fate(receipt))
		}
	}
	return code
}

func (c *call) printReceipt(keys *opened, tenant, client, name string) int {
	receipt, err := keys.Receipt(crmguard.System(c, tenant, "keys receipt"), tenant, client)
	if errors.Is(err, encrypt.ErrNotErased) {
		return c.fail(bad, "nobody has ordered the erasure of client %s of tenant %s\n"+
			"If there is a receipt of it, an older key store was restored: call crmguard keys replay with the ledger", client, tenant)
	}
	if err != nil {
		return c.fail(unable, "%v", advise(err))
	}
	out, err := c.openLedger(name)
	if err == nil {
		err = errors.Join(out.add(receipt), out.close())
	}
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	return good
}

// fate is what a receipt says happened to a client.
func fate(r encrypt.Receipt) string {
	if r.State != encrypt.Destroyed.String() {
		return "closed at " + stamp(r.ClosedAt) + ", the key is not destroyed yet"
	}
	return fmt.Sprintf("destroyed at %s, unreadable in backups after %s, unlinkable after %s", stamp(r.DestroyedAt), stamp(r.UnreadableAfter), stamp(r.UnlinkableAfter))
}

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

var keysErase = command{
	name:  "keys erase",
	args:  "-store DATABASE -kek FILE -db DATABASE|-no-index (-tenant T -client C [-yes] | -finish) [-o FILE] [flags]",
	about: "erase a client by destroying its key, and print the receipt",
	help: `With -tenant and -client it orders that a client is forgotten: within 10 seconds nothing of
it is sealed or opened any more, anywhere, and no copy of the data can bring it back once the
key is destroyed, after 70 seconds. The CRM destroys it by itself where it calls
FinishErasures; where it does not run:

  crmguard keys erase -finish -store … -kek … -db …

destroys the keys of all clients that were ordered, of all tenants, and waits until it may.
Cut off, it is called again. Until then the order stands.

There is no way back. A client's id is never used again. On a terminal it asks you to type
the id, elsewhere -yes is needed. The CRM's journal does not tell of what is done here.

A receipt is a line of JSON, on the output or at the end of the -o file. Keep all of them in
one file, the ledger, away from the key store and its backups: after a restore
crmguard keys replay carries them out again. -retention and -index-life are the CRM's, or
the dates in receipts are wrong. Rows of the CRM's tables are deleted by the CRM, not here.

` + keysHelp + `
Exit codes: 0 ordered or destroyed, 1 not confirmed, or there is no such client, 2 not understood,
3 not possible now, or not all of it.
`,
	do: eraseClient,
}

func eraseClient(c *call) int {
	f := c.keyFlags()
	f.indexFlags(c)
	f.receiptFlags(c)
	tenant := c.flags.String("tenant", "", "`tenant` of the client")
	client := c.flags.String("client", "", "`id` of the client")
	finish := c.flags.Bool("finish", false, "destroy the keys of all clients whose erasure was ordered")
	yes := c.flags.Bool("yes", false, "do not ask")
	ledger := c.flags.String("o", "", "`file` that the receipts are added to")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if err := errors.Join(f.check(), f.checkIndex()); err != nil {
		return c.misused("%v", err)
	}
	named := *tenant != "" && *client != ""
	switch {
	case *finish && (*tenant != "" || *client != ""):
		return c.misused("-finish is for all clients whose erasure was ordered: leave -tenant and -client out")
	case !*finish && !named:
		return c.misused("-tenant and -client are needed, or -finish")
	case !*finish && !*yes && !isTerminal(c.in):
		return c.misused("-yes is needed where nobody can be asked")
	}
	out, err := c.openLedger(*ledger)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer out.close() //nolint:errcheck // each line was synced
	keys, err := c.openKeys(f, true)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer keys.close()
	if *finish {
		return c.finishErasures(keys, out)
	}
	return c.orderErasure(keys, *tenant, *client, *yes, out)
}

func (c *call) orderErasure(keys *opened, tenant, client string, yes bool, out *ledger) int {
	found, err := keys.store.Load(c, []encrypt.Scope{{Tenant: tenant, Purpose: encrypt.DataKey, Name: client}})
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	if len(found) == 0 { // an id with a typing error would be lost for ever
		return c.fail(bad, "client %s of tenant %s has no key, so nothing of it was ever sealed: see that both names are right", client, tenant)
	}
	if !yes {
		if err := c.confirm(tenant, client); err != nil {
			return c.fail(bad, "%v: nothing was changed", err)
		}
	}
	receipt, err := keys.Erase(crmguard.System(c, tenant, "keys erase"), tenant, client)
	if receipt.State != "" && receipt.MAC != nil {
		if err := out.add(receipt); err != nil {
			return c.fail(unable, "the erasure is ordered, and its receipt is lost: %v\nPrint it again with crmguard keys receipt", err)
		}
	}
	if err != nil {
		return c.fail(unable, "%v\nIf keys list counts it as closing, it is ordered all the same; call this again", advise(err))
	}
	if receipt.State == encrypt.Destroyed.String() {
		fmt.Fprintf(c.err, "the key was destroyed at %s already\n", stamp(receipt.DestroyedAt))
		return good
	}
	fmt.Fprintf(c.err, "ordered at %s. Next: the CRM destroys the key after %v; where it does not run, call crmguard keys erase -finish\n", stamp(receipt.ClosedAt), encrypt.ClosingTime)
	return good
}

var errUnconfirmed = errors.New("not confirmed")

// confirm wants the id typed: a y is typed before anybody reads.
func (c *call) confirm(tenant, client string) error {
	fmt.Fprintf(c.err, "Erase client %s of tenant %s for ever? There is no way back.\nType the client's id to go on: ", plain(client), plain(tenant))
	line, err := c.readLine()
	if err != nil || string(line) != client {
		return errUnconfirmed
	}
	return nil
}

// finishTries is how often in a row destroying may fail once nothing is left to wait for.
const finishTries = 20

func (c *call) finishErasures(keys *opened, out *ledger) int {
	_, ordered, err := keys.store.Closing(c)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	if len(ordered) == 0 {
		fmt.Fprintln(c.err, "there is nothing to finish: no erasure is waiting")
		return good
	}
	shown := c.teller()
	err = c.finishAll(keys, ordered, shown)
	shown.end()
	if err != nil {
		return c.fail(unable, "not all could be destroyed: %v", advise(err))
	}
	for _, r := range ordered { // the CRM may have destroyed some of them meanwhile
		receipt, err := keys.Receipt(crmguard.System(c, r.Scope.Tenant, "keys erase"), r.Scope.Tenant, r.Scope.Name)
		if err == nil {
			err = out.add(receipt)
		}
		if err != nil {
			return c.fail(unable, "the keys are destroyed, and a receipt is missing: %v\nPrint it again with crmguard keys receipt", err)
		}
	}
	fmt.Fprintf(c.err, "destroyed: %s of clients\n", count(len(ordered), "key"))
	return good
}

// finishAll waits until none of these clients is closing any more.
func (c *call) finishAll(keys *opened, ordered []encrypt.Record, shown *teller) error {
	due := time.Now().Add(encrypt.ClosingTime) // this process has to see for itself that long
	for failures := 0; ; {
		_, failed := keys.FinishErasures(c)
		_, closing, err := keys.store.Closing(c)
		if err != nil {
			return err
		}
		left := 0
		for _, r := range closing {
			for _, o := range ordered {
				if r.Scope == o.Scope {
					left++
					break
				}
			}
		}
		if left == 0 {
			return nil
		}
		if failures++; failed == nil {
			failures = 0
		}
		if failures > finishTries {
			return failed
		}
		shown.tell(fmt.Sprintf("%s to destroy", count(left, "key")), fmt.Sprintf("up to %v to wait", max(0, time.Until(due)).Round(time.Second)))
		select {
		case <-c.Done():
			return c.Err()
		case <-time.After(time.Second):
		}
	}
}

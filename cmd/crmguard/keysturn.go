package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/encrypt"
)

var keysTurn = command{
	name:  "keys turn",
	args:  "-store DATABASE -kek FILE [-passphrase PASSFILE|-] [-prefix P]",
	about: "replace the key-encryption key, so that older copies of the key store open nothing",
	help: `Makes a new key-encryption key in FILE, wraps every key in the key store anew, and destroys
the older ones. It takes 10 seconds and more, while everybody reads and writes on. Do it
after keys may have been stolen, once a year besides, and to shorten the time until backups
of the key store cannot bring back the keys of erased clients.

Cut off by Ctrl-C, kill -9 or a power cut it leaves everything usable: call it again, and it
begins anew. It never runs twice at once.

Afterwards make new copies of the key store and of FILE, and destroy the old copies of FILE:
as long as there is one, it opens the old copies of the key store.

` + keysHelp + `
Exit codes: 0 turned, 1 refused as another turn is under way or a key is damaged,
2 not understood, 3 cut off or not possible now.
`,
	do: turnKeys,
}

func turnKeys(c *call) int {
	f := c.keyFlags()
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if err := f.check(); err != nil {
		return c.misused("%v", err)
	}
	keys, err := c.openKeys(f, true)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer keys.close()
	shown := c.teller()
	shown.tell("looking whether another turn is under way", "")
	turned, err := keys.Turn(c, func(p encrypt.TurnProgress) {
		shown.tell(turnStep(p), fmt.Sprintf("%d of %s have their new keyset, %d of %s are wrapped anew",
			p.Tenants, count(p.AllTenants, "tenant"), p.Keys, count(p.AllKeys, "key")))
	})
	shown.end()
	switch {
	case errors.Is(err, encrypt.ErrTurning), errors.Is(err, encrypt.ErrDamaged), errors.Is(err, encrypt.ErrKEKRotated):
		return c.fail(bad, "%v", advise(err))
	case err != nil:
		return c.fail(unable, "%v", advise(err))
	}
	fmt.Fprintf(c.out, "turned: %s of tenants made, %s wrapped anew, in %v\n", count(turned.Tenants, "keyset"), count(turned.Keys, "key"),
		turned.EndedAt.Sub(turned.BeganAt).Round(time.Second))
	fmt.Fprintf(c.out, "the older keys in %s are gone since %s\n", plain(f.kek), stamp(turned.Gone))
	fmt.Fprintf(c.out, "Next: back up the key store, and copy %s to where its copy is kept. Destroy the copies of\n"+
		"%[1]s from before: each still opens the copies of the key store from before.\n", plain(f.kek))
	return good
}

func turnStep(p encrypt.TurnProgress) string {
	switch p.Step {
	case encrypt.TurnWaiting:
		return fmt.Sprintf("waiting up to %v for other processes", encrypt.Lease)
	case encrypt.TurnDestroying:
		return "destroying the older keys"
	}
	return "wrapping"
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

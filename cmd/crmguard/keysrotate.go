package main

import (
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

var keysRotate = command{
	name:  "keys rotate",
	args:  "-kek FILE [-store DATABASE -tenant T [-client C | -kind K -field F [-index NAME]]] [flags]",
	about: "make the next version of a key-encryption key, or of one key in a key store",
	help: `Makes the next version of a key, with which everything is sealed from now on (in other
processes 10 seconds later). What was sealed before still opens, and nothing is sealed anew
by this: the text at the end says what does that, in the CRM.

  -kek alone                        the key in the KEK file
  -tenant T -client C               what seals the data of a client
  -tenant T                         what seals the data of a tenant that belongs to no client
  -tenant T -kind K -field F        what makes pseudonyms of a field that the CRM asks for itself
  ... -index NAME                   the index of a field: phone, email, exact, last4 or domain

Names are those in the struct tags. After a theft of keys use crmguard keys turn: versions in
the KEK file that nobody destroys go on opening what was stolen.

` + keysHelp + `
Exit codes: 0 rotated, 1 there is no such key or the client was erased, 2 not understood, 3 not possible now.
`,
	do: rotateKey,
}

func rotateKey(c *call) int {
	f := c.keyFlags()
	tenant := c.flags.String("tenant", "", "`tenant` whose key it is")
	client := c.flags.String("client", "", "`id` of a client")
	kind := c.flags.String("kind", "", "`kind` of records, such as contacts")
	field := c.flags.String("field", "", "logical `name` of a field")
	index := c.flags.String("index", "", "`name` of an index of the field")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	switch {
	case f.kek == "":
		return c.misused("-kek is missing")
	case *tenant == "" && (*client != "" || *kind != "" || f.store != ""):
		return c.misused("-tenant is missing; for the key in the KEK file give -kek alone")
	case *tenant != "" && f.store == "":
		return c.misused("-store is missing")
	case (*kind == "") != (*field == ""), *index != "" && *kind == "":
		return c.misused("-kind and -field belong together, and -index to them")
	case *client != "" && *kind != "":
		return c.misused("a client has one key for all fields, and the index of a field one for all clients: give -client or -kind and -field")
	case *tenant == "":
		return c.rotateKEK(f)
	}
	scope := encrypt.ClientScope(*tenant, *client)
	if *kind != "" {
		scope = encrypt.IndexScope(*tenant, *kind, *field, *index)
	}
	keys, err := c.openKeys(f, true)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	defer keys.close()
	version, err := keys.Rotate(crmguard.System(c, *tenant, "keys rotate"), scope)
	switch {
	case errors.Is(err, encrypt.ErrNoKey):
		return c.fail(bad, "there is no such key of tenant %s: see that the names are right; keys are made when something is sealed for the first time", *tenant)
	case errors.Is(err, crmguard.ErrErased):
		return c.fail(bad, "the client was erased, or is being erased: nothing is sealed for it any more")
	case err != nil:
		return c.fail(unable, "%v", advise(err))
	}
	fmt.Fprintf(c.out, "version %d is in use now, in other processes in %v\n", version, encrypt.Lease)
	switch {
	case scope.Purpose == encrypt.DataKey:
		fmt.Fprintf(c.out, "Next: after %v let the CRM seal the rows anew, with Reencrypt of each table;\n"+
			"then Keyring.Retire removes the versions before %d.\n", encrypt.ClosingTime, version)
	case *index != "":
		fmt.Fprintln(c.out, "Next: the CRM's MaintainIndex of the table writes the entries of all rows under it, and removes older versions then.\n"+
			"Searches find everything meanwhile. A CRM that calls MaintainIndex every hour needs nothing else.")
	default:
		fmt.Fprintf(c.out, "Next: what the CRM has stored under older versions it can find as long as these exist; once nothing\n"+
			"is left under them, Keyring.Retire removes the versions before %d.\n", version)
	}
	return good
}

func (c *call) rotateKEK(f *keyFlags) int {
	kek, err := c.openKEK(f.kek, f.passphrase)
	if err == nil {
		err = advise(kek.Rotate(c))
	}
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	fmt.Fprintf(c.out, "%s: a new key encrypts from now on; the older ones stay in the file and still decrypt\n"+
		"Next: copy the file to where its copy is kept, as older copies do not open what comes now. The older keys\n"+
		"go only with crmguard keys turn, which wraps everything anew: until then whoever has one reads what it wrapped.\n", plain(f.kek))
	return good
}

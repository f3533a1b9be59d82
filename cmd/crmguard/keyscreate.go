package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
)

var keysCreate = command{
	name:  "keys create",
	args:  "FILE [-passphrase PASSFILE|-] [-signer NAME] [-data DIR]",
	about: "make a key file for package encrypt, or a signing key for a journal",
	help: `Makes a key-encryption key in FILE, which only you can read, for encrypt.OpenKeyFile;
with -passphrase one that is itself sealed, for encrypt.OpenPassphraseFile: PASSFILE is a
file that only you can read, or - to be asked on the terminal or to read a pipe;
or, with -signer, a signing key for audit.OpenSigner, whose verifying key goes into
FILE.pub. An existing file is never replaced. A file in the folder of the data is
refused: whoever takes the data would take the key.

Exit codes: 0 made, 1 refused or failed, 2 not understood.
`,
	do: createKey,
}

func createKey(c *call) int {
	signer := c.flags.String("signer", "", "make a signing key with this `name`, such as crm.example/journal")
	data := c.flags.String("data", "", "`folder` of the data, which the key must stay out of")
	passphrase := c.flags.String("passphrase", "", "`file` with a passphrase of at least 12 bytes, - to ask for it")
	rest, code, ok := c.parse(1)
	if !ok {
		return code
	}
	signing := false
	c.flags.Visit(func(f *flag.Flag) { signing = signing || f.Name == "signer" })
	if signing && (*signer == "" || strings.Contains(*signer, "+") || strings.ContainsFunc(*signer, unicode.IsSpace)) {
		return c.misused("the name of a signing key is not empty and has no spaces and no +")
	}
	if signing && *passphrase != "" {
		return c.misused("a signing key has no passphrase")
	}
	file := rest[0]
	if refusal := free(file, *data); refusal != nil {
		return c.fail(bad, "%v", refusal)
	}
	if signing {
		return c.createSigner(file, *signer)
	}
	if err := c.createKEK(file, *data, *passphrase); err != nil {
		if _, there := os.Lstat(file); there != nil {
			return c.fail(bad, "%v", err)
		}
		return c.fail(bad, "%v\n%s is there now: delete it before you try again, as nothing was sealed with it.", err, plain(file))
	}
	fmt.Fprintf(c.out, "%s: a new key-encryption key, mode 0600\n"+
		"Next: keep a copy away from the data and its backups. Without this key nothing opens that was sealed under it.\n", plain(file))
	if *passphrase != "" {
		fmt.Fprintln(c.out, "Keep the passphrase elsewhere than that copy: neither opens anything without the other.")
	}
	return good
}

func (c *call) createKEK(file, data, passphrase string) error {
	if passphrase == "" {
		_, err := encrypt.OpenKeyFile(file, data, true)
		return err
	}
	text, err := c.readPassphrase(passphrase, true)
	if err != nil {
		return err
	}
	defer clear(text)
	_, err = encrypt.OpenPassphraseFile(file, data, text, true)
	return err
}

// free returns why no key can be made there. To open what is not there is how
// encrypt says where it would be.
func free(file, data string) error {
	_, err := encrypt.OpenKeyFile(file, data, false)
	if errors.Is(err, encrypt.ErrKeyFileInside) {
		return advised{err, fmt.Sprintf("Name a folder outside %s, such as crm-keys beside it", plain(data))}
	}
	if _, there := os.Lstat(file); there == nil {
		return advised{fmt.Errorf("%s exists already and stays as it is: what was sealed or signed with it needs it", plain(file)), "Name another file"}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (c *call) createSigner(file, name string) int {
	if _, _, err := audit.OpenSigner(file, name, true); err != nil {
		return c.fail(bad, "%v", err)
	}
	fmt.Fprintf(c.out, "%s: a new signing key named %s, mode 0600\n%s: its verifying key\n"+
		"Next: copy %[3]s to where the journal is verified, and keep a copy of the signing key away from the data.\n", plain(file), plain(name), plain(file+".pub"))
	return good
}

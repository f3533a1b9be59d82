package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/jsontext"
)

var keysList = command{
	name:  "keys list",
	args:  "-store DATABASE [-prefix P] [-index-life DAYS] [-json]",
	about: "count the keys in a key store: of which tenant, in which state, how old, and what is due",
	help: `Counts the keys that encryptsql keeps, by tenant, purpose, version and state, with the
age of the oldest. Then it tells the generation of the key-encryption key and when it was
turned, how many clients are being erased or were, and what is due and has not been done.
It reads no key and changes nothing; the CRM may run meanwhile.

` + databaseHelp + `
Exit codes: 0 listed, 2 not understood, 3 could not be read.
`,
	do: listKeys,
}

// purposes are what keys are called here. Those of tenants seal what belongs to no
// client.
var purposes = map[encrypt.Purpose]string{
	encrypt.KEKCheck: "kek check", encrypt.TenantKeyset: "keyset", encrypt.DataKey: "tenant", encrypt.IndexKey: "index", encrypt.MACKey: "mac",
}

// keyCount is a line of the list.
type keyCount struct {
	Tenant   string    `json:"tenant"`
	Purpose  string    `json:"purpose"` // client, tenant, keyset, index, mac or kek check
	Version  uint32    `json:"version"`
	State    string    `json:"state"` // active, closing or destroyed
	Keys     int64     `json:"keys"`
	Oldest   time.Time `json:"oldest"`
	Newest   time.Time `json:"newest"`
	Messages uint64    `json:"messages"` // the most that were reserved with one of the keys
}

func listKeys(c *call) int {
	store := c.flags.String("store", "", "`database` of the keys, such as crm-keys/keys.db")
	prefix := c.flags.String("prefix", "", "`prefix` of its tables, if the CRM has chosen one")
	indexLife := c.flags.Int("index-life", 90, "`days` of encrypt.Options.IndexLife of the CRM")
	asJSON := c.flags.Bool("json", false, "print JSON")
	if _, code, ok := c.parse(0); !ok {
		return code
	}
	if *store == "" {
		return c.misused("-store is missing")
	}
	db, err := openDatabase(c, *store)
	if err != nil {
		return c.fail(unable, "the key store cannot be opened: %v", err)
	}
	defer db.Close() //nolint:errcheck // nothing was written
	list, err := encryptsql.Summarize(c, db, &encryptsql.Options{TablePrefix: *prefix})
	if err != nil {
		return c.fail(unable, "%v\nIs it the database of the keys, usually keys.db in the keys folder, and is -prefix that of its tables?", err)
	}
	lines := make([]keyCount, 0, len(list))
	for _, s := range list {
		purpose := purposes[s.Purpose]
		if s.Purpose == encrypt.DataKey && s.Named {
			purpose = "client"
		}
		lines = append(lines, keyCount{s.Tenant, purpose, s.Version, s.State.String(), s.Keys, s.Oldest, s.Newest, s.Messages})
	}
	now := time.Now()
	report, err := c.readReport(db, *prefix, lines)
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	report.Due = report.due(now, days(*indexLife))
	if *asJSON {
		err = printJSON(c.out, report)
	} else if err = c.printKeys(lines, now); err == nil && len(lines) > 0 {
		c.printState(report, now)
	}
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	return good
}

func (c *call) readReport(db *sql.DB, prefix string, lines []keyCount) (*keysReport, error) {
	store, err := encryptsql.NewReader(c, db, &encryptsql.Options{TablePrefix: prefix})
	if err != nil {
		return nil, err
	}
	r := &keysReport{Keys: lines}
	if r.KEK, err = readKEKState(c, store); err != nil {
		return nil, err
	}
	r.Erasures, err = readErasures(c, store, lines)
	return r, err
}

func (c *call) printKeys(lines []keyCount, now time.Time) error {
	if len(lines) == 0 {
		fmt.Fprintln(c.out, "there are no keys yet")
		return nil
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENANT\tPURPOSE\tVERSION\tSTATE\tKEYS\tOLDEST\tDAYS")
	for _, l := range lines {
		tenant := "-" // the check of the KEK is of none
		if l.Tenant != "" {
			tenant = plain(l.Tenant)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t%d\n", tenant, l.Purpose, l.Version, l.State, l.Keys,
			l.Oldest.Format(time.DateOnly), int(now.Sub(l.Oldest)/(24*time.Hour)))
	}
	return w.Flush()
}

// printJSON prints what cannot write to the terminal.
func printJSON(w io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		_, err = w.Write(append(jsontext.Printable(text), '\n'))
	}
	return err
}

package doctest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/ipfilter"
	"github.com/crmguard/crmguard/masking"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/password"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/session"
	"github.com/pquerna/otp/totp"
)

// The examples of README.md, which shows their bodies. Output is checked.

var (
	ctx  = context.Background()
	anna = crmguard.Subject{Tenant: "default", ID: "anna", Kind: crmguard.KindEmployee}
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func Example_masking() {
	type Contact struct {
		ID    string `mask:"-"`
		Name  string `mask:"name"`
		Phone string `mask:"phone"`
	}
	nothingClear := func(field string) bool { return false }
	shown, err := masking.View(Contact{"17", "Анна Петрова", "+7 916 123-45-67"}, nothingClear)
	fmt.Println(shown, err)
	fmt.Println(masking.RefuseMasked(shown)) // a mask is never saved over the value
	// Output:
	// {17 А••• П••• +7 ••• 67} <nil>
	// masking: field name holds a mask, not a value
}

func Example_rbac() {
	policy := filepath.Join(os.TempDir(), "policy-"+rand.Text()+".csv")
	defer func() { check(os.Remove(policy)) }()
	check(os.WriteFile(policy, []byte(`
p, role:seller, default, contacts, view, own, allow
p, role:seller, default, contacts, list, own, allow
g, u:anna, role:seller, default
`), 0o600))

	rights, err := rbac.FromCSV(ctx, policy, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	check(err)
	hers := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "17", Owner: "anna"}
	fmt.Println(rights.Check(ctx, anna, crmguard.View, hers))
	fmt.Println(rights.Check(ctx, anna, crmguard.Delete, hers))

	rows, err := rights.Filter(ctx, anna, crmguard.List, "contacts")
	check(err)
	fmt.Println(rows.SQL(rbac.Columns{Tenant: "tenant", Owner: "owner"}, 1))
	// Output:
	// <nil>
	// crmguard: denied by rbac: no-rule
	// (tenant = $1 AND owner = $2) [default anna] <nil>
}

func Example_encrypt() {
	dir, err := os.MkdirTemp("", "keys")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	type Contact struct {
		ID          string `encrypt:",record"`
		Phone       string `encrypt:"phone,index=phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	index := encrypt.NewMemoryIndex() // encryptsql.NewIndex in a database

	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "crm-data", true)
	check(err)
	keys, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{Index: index}) // encryptsql.OpenSQLite
	check(err)
	contacts, err := encrypt.NewTable[Contact](keys, "contacts", &encrypt.TableOptions{Region: "RU"})
	check(err)
	row := Contact{ID: "17", Phone: "8 (916) 123-45-67"}
	entries, err := contacts.Seal(ctx, "default", &row) // then INSERT row.PhoneSealed
	check(err)
	check(index.Put(ctx, nil, entries))
	ctx := crmguard.WithSubject(ctx, anna) // who asks
	fmt.Println(contacts.Find(ctx, "default", "phone", "phone", "+7 916 123 45 67"))
	stored := Contact{ID: "17", PhoneSealed: row.PhoneSealed}
	err = contacts.Open(ctx, "default", &stored)
	fmt.Println(stored.Phone, err)
	_, err = keys.Erase(ctx, "default", "17")
	check(err)
	err = contacts.Open(ctx, "default", &stored)
	fmt.Println(errors.Is(err, crmguard.ErrErased))
	// Output:
	// [17] <nil>
	// 8 (916) 123-45-67 <nil>
	// true
}

func Example_audit() {
	dir, err := os.MkdirTemp("", "journal")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	keys := crmguardtest.NewKeys() // encrypt.New in a host

	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "journal.key"), "crm.example/journal", true) // true: when it is installed, never later
	check(err)
	store, err := audit.OpenFile(filepath.Join(dir, "journal")) // or auditsql.New
	check(err)
	journal, err := audit.New(ctx, store, keys, signer, verifier, nil)
	check(err)
	defer func() { check(journal.Close()) }()
	check(journal.Record(ctx, crmguard.Event{ // nil: durable and chained
		Subject: anna, Action: crmguard.View, Outcome: crmguard.Done,
		Resource: crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "17"},
		Private:  []crmguard.Private{{Client: "17", Name: "why", Value: []byte("asked for a call")}},
	}))
	report, err := journal.Verify(ctx, verifier, nil)
	fmt.Println(report.Verdict, report.OK(), report.Entries, err)
	// Output: unanchored true 1 <nil>
}

func Example_password() {
	hasher, err := password.New(nil)
	check(err)
	fmt.Println(password.Strong("Anna-2026!", "anna") != nil)
	phc, err := hasher.Hash(ctx, "three quiet green trains")
	check(err)
	ok, rehash, err := hasher.Verify(ctx, "three quiet green trains", phc)
	fmt.Println(ok, rehash, err)
	// Output:
	// true
	// true false <nil>
}

func Example_session() {
	keys := crmguardtest.NewKeys() // encrypt.New in a host
	sessions, err := session.New(session.NewMemory(), keys, nil)
	check(err)
	check(sessions.OpenPerson(ctx, "default", "anna")) // once, when Anna is hired
	token, err := sessions.Start(ctx, anna)
	check(err)
	s, err := sessions.Authenticate(ctx, token)
	fmt.Println(s.ID, err)
	check(sessions.ClosePerson(ctx, "default", "anna")) // Anna leaves
	_, err = sessions.Authenticate(ctx, token)
	fmt.Println(err)
	// Output:
	// anna <nil>
	// crmguard: denied by session: unknown-session
}

func Example_ipfilter() {
	keys := crmguardtest.NewKeys() // encrypt.New in a host
	olga := crmguard.Subject{Tenant: "default", ID: "olga", Kind: crmguard.KindEmployee, Addr: netip.MustParseAddr("203.0.113.7")}
	ctx := crmguard.WithSubject(ctx, olga) // the owner, in the office

	addrs, err := ipfilter.New(keys, nil, nil)
	check(err)
	check(addrs.Load(ctx, "default", nil)) // no rules yet
	rules := ipfilter.Rules{Company: ipfilter.List{Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}
	next, err := addrs.Prepare(ctx, rules, []ipfilter.Owner{{ID: "olga"}}, nil) // refused if olga locked herself out
	check(err)
	check(addrs.Load(ctx, "default", next.JSON)) // a host stores it first
	contacts := crmguard.Resource{Tenant: "default", Kind: "contacts"}
	fmt.Println(addrs.Check(ctx, olga, crmguard.List, contacts))
	olga.Addr = netip.MustParseAddr("198.51.100.9")
	fmt.Println(addrs.Check(ctx, olga, crmguard.List, contacts))
	// Output:
	// <nil>
	// crmguard: denied by ipfilter: company-unlisted
}

func Example_mfa() {
	keys := crmguardtest.NewKeys() // encrypt.New in a host
	clock := crmguardtest.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	app := func(e *mfa.Enrolment) string { // what Anna's app shows
		code, err := totp.GenerateCode(e.Secret(), clock.Now())
		check(err)
		return code
	}

	factors, err := mfa.New(mfa.NewMemory(), keys, "Acme CRM", &mfa.Options{Clock: clock.Now}) // mfasql.New
	check(err)
	enrolment, err := factors.Enrol(ctx, "default", "anna", "anna@acme.example")
	check(err)
	_, err = enrolment.QR() // a PNG for the app; the enrolment hides itself in logs
	check(err)
	check(factors.Confirm(ctx, "default", "anna", enrolment.ID, app(enrolment)))
	clock.Advance(30 * time.Second)
	code := app(enrolment)
	fmt.Println(factors.Verify(ctx, "default", "anna", code))
	fmt.Println(factors.Verify(ctx, "default", "anna", code)) // a code is good once
	// Output:
	// <nil>
	// crmguard: denied by mfa: refused
}

func Example_quota() {
	kyiv, err := time.LoadLocation("Europe/Kyiv")
	check(err)
	zone := func(context.Context, string) (*time.Location, error) { return kyiv, nil }

	norms, err := quota.New(quota.NewMemory(), zone, []quota.Norm{{Action: crmguard.View, Kind: "contacts", Soft: 1, Hard: 2}}, nil)
	check(err)
	ctx := crmguard.WithSubject(ctx, anna)
	for _, client := range []string{"17", "18", "17", "19"} {
		resource := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: client}
		ctx := crmguard.WithAct(ctx, crmguard.View, resource)
		fmt.Println(client, norms.OnOpen(ctx, "default", []string{client})) // encrypt calls it before it opens
	}
	// Output:
	// 17 <nil>
	// 18 <nil>
	// 17 <nil>
	// 19 crmguard: denied by quota: norm
}

// Example_guard is compiled, not run: it serves.
func Example_guard() {
	var (
		sessions           *session.Manager
		rights             *rbac.Engine
		journal            *audit.Log
		show, reveal       guard.HandlerFunc
		contactOf, phoneOf guard.Loader
		mux                = http.NewServeMux()
	)

	g, err := guard.New(sessions, rights, rights, journal, nil)
	check(err)
	mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, contactOf, show))
	mux.Handle("POST /contacts/{id}/phone", g.ProtectAct(crmguard.Reveal, phoneOf, reveal))
	server := http.NewCrossOriginProtection().Handler(g.Handler(mux))
	check(http.ListenAndServeTLS(":8443", "cert.pem", "key.pem", server))
}

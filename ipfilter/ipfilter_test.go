package ipfilter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
)

// staff is a directory: roles by person.
type staff map[string][]string

var errDirectory = errors.New("directory down")

func (s staff) Resolve(_ context.Context, tenant, subject string) (roles, units []string, err error) {
	if _, down := s["down"]; down {
		return nil, nil, errDirectory
	}
	if tenant != "acme" {
		return nil, nil, nil
	}
	return s[subject], nil, nil
}

var (
	someStaff = staff{"anna": {"seller"}, "boris": {"seller", "head"}, "olga": {"owner"}}
	contact   = crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"}
)

func set(prefixes ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range prefixes {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func person(id, addr string, roles ...string) crmguard.Subject {
	s := crmguard.Subject{Tenant: "acme", ID: id, Kind: crmguard.KindEmployee, Roles: roles}
	if addr != "" {
		s.Addr = netip.MustParseAddr(addr)
	}
	return s
}

// newFilter returns a filter with no rules of acme.
func newFilter(t testing.TB, keys crmguard.Authenticator, directory Directory, marks Marks) *Filter {
	t.Helper()
	f, err := New(keys, directory, &Options{Marks: marks, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return f
}

// inForce returns a filter with these rules of acme.
func inForce(t testing.TB, rules Rules) *Filter {
	t.Helper()
	f := newFilter(t, crmguardtest.NewKeys(), someStaff, nil)
	require.NoError(t, f.Load(context.Background(), "acme", nil))
	require.NoError(t, f.Load(context.Background(), "acme", prepared(t, f, rules).JSON))
	return f
}

var anyOwner = []Owner{{ID: "olga"}}

func prepared(t testing.TB, f *Filter, rules Rules) Document {
	t.Helper()
	d, err := f.Prepare(crmguard.System(context.Background(), "acme", "test"), rules, anyOwner, &ChangeOptions{Force: true})
	require.NoError(t, err)
	return d
}

// code returns what a check of acme's contact says: "" is yes.
func code(t testing.TB, f *Filter, s crmguard.Subject) string {
	t.Helper()
	err := f.Check(context.Background(), s, crmguard.View, contact)
	if err == nil {
		return ""
	}
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, "ipfilter", denial.By)
	require.Equal(t, crmguard.Forbidden, denial.Status)
	require.NotEmpty(t, denial.Detail)
	return denial.Code
}

var someRules = Rules{
	Company: List{Allow: set("203.0.113.0/24", "2001:db8::/32"), Deny: set("203.0.113.66/32", "198.51.100.0/28")},
	Roles: map[string]List{
		"head":   {Allow: set("203.0.113.0/25", "192.0.2.0/24")},
		"seller": {Allow: set("203.0.113.0/24", "192.0.2.0/25"), Deny: set("203.0.113.99/32")},
		"temp":   {Deny: set("0.0.0.0/0", "::/0")},
		"remote": {Allow: set("0.0.0.0/0", "::/0")},
	},
	People: map[string]List{
		"igor":  {Allow: set("198.51.100.0/24")},
		"vera":  {Deny: set("203.0.113.8/32")},
		"robot": {Allow: set("192.0.2.200/32"), Deny: set("192.0.2.0/24")},
	},
}

func TestCheck(t *testing.T) {
	f := inForce(t, someRules)
	for _, tt := range []struct {
		name string
		s    crmguard.Subject
		want string
	}{
		{"company", person("pavel", "203.0.113.7"), ""},
		{"company, IPv6", person("pavel", "2001:db8::7"), ""},
		{"elsewhere", person("pavel", "192.0.2.7"), CodeCompanyUnlisted},
		{"mapped", person("pavel", "::ffff:203.0.113.7"), ""},
		{"mapped, denied", person("pavel", "::ffff:203.0.113.66"), CodeCompanyDenied},
		{"zone", person("pavel", "2001:db8::7%eth0"), ""},
		{"denied in the office", person("pavel", "203.0.113.66"), CodeCompanyDenied},
		{"no address", person("pavel", ""), CodeNoAddress},
		{"unspecified address", person("pavel", "0.0.0.0"), CodeNoAddress},
		{"unspecified IPv6 address", person("pavel", "::"), CodeNoAddress},
		{"mapped unspecified address", person("pavel", "::ffff:0.0.0.0"), CodeNoAddress},
		{"role instead of company", person("anna", "192.0.2.7", "seller"), ""},
		{"role has no IPv6", person("anna", "2001:db8::7", "seller"), CodeRoleUnlisted},
		{"role without rules", person("lena", "203.0.113.7", "clerk"), ""},
		{"role without rules, elsewhere", person("lena", "192.0.2.7", "clerk"), CodeCompanyUnlisted},
		{"role denies", person("anna", "203.0.113.99", "seller"), CodeRoleDenied},
		{"role denies everything", person("lena", "203.0.113.7", "temp"), CodeRoleDenied},
		{"both roles", person("boris", "203.0.113.7", "seller", "head"), ""},
		{"one of two roles", person("boris", "192.0.2.130", "seller", "head"), CodeRoleUnlisted},
		{"the other of two roles", person("boris", "203.0.113.200", "head", "seller"), CodeRoleUnlisted},
		{"a wide role does not widen a narrow one", person("boris", "8.8.8.8", "remote", "head"), CodeRoleUnlisted},
		{"a wide role alone", person("lena", "8.8.8.8", "remote"), ""},
		{"a wide role does not override the company's deny", person("lena", "198.51.100.1", "remote"), CodeCompanyDenied},
		{"roles are asked for", person("anna", "192.0.2.7"), ""},
		{"roles are asked for, both", person("boris", "192.0.2.130"), CodeRoleUnlisted},
		{"person instead of role", person("igor", "198.51.100.77", "seller"), ""},
		{"person not in the office", person("igor", "203.0.113.7", "seller"), CodePersonUnlisted},
		{"person under the company's deny", person("igor", "198.51.100.7"), CodeCompanyDenied},
		{"person denied", person("vera", "203.0.113.8"), CodePersonDenied},
		{"person without allow list", person("vera", "203.0.113.9"), ""},
		{"deny before allow", person("robot", "192.0.2.200"), CodePersonDenied},
		{"job of the host", crmguard.Subject{Tenant: "acme", ID: "system:import", Kind: crmguard.KindSystem}, ""},
		{"job of the host with an address", crmguard.Subject{Tenant: "acme", ID: "system:import", Kind: crmguard.KindSystem, Addr: netip.MustParseAddr("8.8.8.8")}, CodeCompanyUnlisted},
		{"integration", crmguard.Subject{Tenant: "acme", ID: "robot", Kind: crmguard.KindIntegration, OnBehalfOf: "pavel", Addr: netip.MustParseAddr("203.0.113.7")}, CodePersonUnlisted},
		{"integration without address", crmguard.Subject{Tenant: "acme", ID: "robot", Kind: crmguard.KindIntegration}, CodeNoAddress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, code(t, f, tt.s))
			a, err := f.Explain(t.Context(), tt.s)
			require.NoError(t, err)
			require.Equal(t, tt.want, a.Code)
			require.Equal(t, tt.want == "", a.Allowed)
		})
	}
}

func TestWithoutRulesEverybodyWithAnAddressComesIn(t *testing.T) {
	f := newFilter(t, crmguardtest.NewKeys(), nil, nil)
	require.NoError(t, f.Load(t.Context(), "acme", nil))
	require.Empty(t, code(t, f, person("anna", "8.8.8.8")))
	require.Equal(t, CodeNoAddress, code(t, f, person("anna", "")))
	a, err := f.Explain(t.Context(), person("anna", "8.8.8.8"))
	require.NoError(t, err)
	require.Equal(t, "8.8.8.8: no list restricts it; rules 0", a.String(), "it is visible that nothing is restricted")
}

// What cannot be decided is an error and no denial; the caller treats it as no.
func TestUndecided(t *testing.T) {
	f := inForce(t, someRules)
	undecided := func(err error) {
		t.Helper()
		require.Error(t, err)
		_, denied := errors.AsType[*crmguard.Denial](err)
		require.False(t, denied)
	}
	for _, err := range []error{
		f.Check(t.Context(), crmguard.Subject{}, crmguard.View, contact),
		f.Check(t.Context(), person("anna", office), crmguard.View, crmguard.Resource{Tenant: "other"}),
		f.Check(t.Context(), person("anna", office), crmguard.View, crmguard.Resource{}),
	} {
		_, denied := errors.AsType[*crmguard.Denial](err)
		require.True(t, denied, "a foreign tenant and nobody are a plain no")
	}
	foreign := person("anna", office)
	foreign.Tenant = "other"
	undecided(f.Check(t.Context(), foreign, crmguard.View, crmguard.Resource{Tenant: "other"}))
	_, err := f.Explain(t.Context(), foreign)
	undecided(err)
	_, err = f.Explain(t.Context(), crmguard.Subject{Tenant: "acme"})
	require.Error(t, err)
	_, loaded := f.InForce("other")
	require.False(t, loaded)

	f.directory = staff{"down": nil}
	err = f.Check(t.Context(), person("anna", office), crmguard.SignIn, contact)
	undecided(err)
	require.ErrorIs(t, err, errDirectory)
	_, err = f.Explain(t.Context(), person("anna", office))
	require.ErrorIs(t, err, errDirectory)
	require.Empty(t, code(t, f, person("anna", office, "seller")), "roles that are known are not asked for")
}

func TestNewNeedsKeys(t *testing.T) {
	_, err := New(nil, nil, nil)
	require.Error(t, err)
	f, err := New(crmguardtest.NewKeys(), nil, nil)
	require.NoError(t, err)
	require.NotNil(t, f.log)
}

func TestAnswersExplainThemselves(t *testing.T) {
	f := inForce(t, someRules)
	for want, s := range map[string]crmguard.Subject{
		"203.0.113.7 is in 203.0.113.0/24, which the company allows; rules 1":    person("pavel", "::ffff:203.0.113.7"),
		"203.0.113.66 is in 203.0.113.66/32, which the company denies; rules 1":  person("pavel", "203.0.113.66"),
		"8.8.8.8 is in no prefix that the company allows; rules 1":               person("pavel", "8.8.8.8"),
		"192.0.2.130 is in no prefix that role seller allows; rules 1":           person("boris", "192.0.2.130"),
		"203.0.113.7 is in 203.0.113.0/24, which role seller allows; rules 1":    person("anna", "203.0.113.7"),
		"192.0.2.200 is in 192.0.2.0/24, which person robot denies; rules 1":     person("robot", "192.0.2.200"),
		"198.51.100.77 is in 198.51.100.0/24, which person igor allows; rules 1": person("igor", "198.51.100.77"),
		"the address is not known; rules 1":                                      person("igor", ""),
		"2001:db8::7 is in no prefix that role seller allows; rules 1":           person("anna", "2001:db8::7%eth0"),
		"a job of the host has no address; rules 1":                              {Tenant: "acme", ID: "system:x", Kind: crmguard.KindSystem},
		"203.0.113.99 is in 203.0.113.99/32, which role seller denies; rules 1":  person("anna", "203.0.113.99"),
		"203.0.113.250 is in 203.0.113.0/24, which the company allows; rules 1":  person("pavel", "203.0.113.250"),
		"2001:db8::1 is in 2001:db8::/32, which the company allows; rules 1":     person("pavel", "2001:db8::1"),
		"198.51.100.15 is in 198.51.100.0/28, which the company denies; rules 1": person("igor", "198.51.100.15"),
		"198.51.100.16 is in 198.51.100.0/24, which person igor allows; rules 1": person("igor", "198.51.100.16"),
		"1.2.3.4 is in 0.0.0.0/0, which role remote allows; rules 1":             person("lena", "1.2.3.4", "clerk", "remote"),
		"203.0.113.1 is in 0.0.0.0/0, which role temp denies; rules 1":           person("lena", "203.0.113.1", "temp"),
		"203.0.113.128 is in no prefix that role head allows; rules 1":           person("boris", "203.0.113.128"),
		"203.0.113.127 is in 203.0.113.0/25, which role head allows; rules 1":    person("boris", "203.0.113.127"),
		"2001:db8:1::1 is in 2001:db8::/32, which the company allows; rules 1":   person("pavel", "2001:db8:1::1"),
	} {
		a, err := f.Explain(t.Context(), s)
		require.NoError(t, err)
		require.Equal(t, want, a.String())
		if !a.Allowed {
			denial, _ := errors.AsType[*crmguard.Denial](f.Check(t.Context(), s, crmguard.View, contact))
			require.Equal(t, want, denial.Detail)
			require.NotContains(t, denial.Error(), s.Addr.String(), "what the subject may see does not explain")
		}
	}
}

// question is random rules with a random question.
type question struct {
	rules  Rules
	addr   netip.Addr
	person string
	roles  []string
}

var (
	somePrefixes = []string{
		"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.1.2.128/25", "192.0.2.0/24",
		"2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::1/128", "fe80::/10", "::ffff:10.1.0.0/112", "::ffff:192.0.2.1/128",
	}
	someAddrs = []string{
		"10.1.2.3", "10.1.2.200", "10.1.9.9", "10.9.9.9", "192.0.2.1", "8.8.8.8", "::ffff:10.1.2.3", "::ffff:192.0.2.1", "2001:db8:1::1",
		"2001:db8:2::1", "2001:db8:1::1%eth0", "fe80::1%eth0", "fe80::1", "2a00::1", "0.0.0.0", "::",
	}
	someRoles  = []string{"seller", "head", "clerk", "remote"}
	somePeople = []string{"anna", "boris", "olga"}

	lists = rapid.Custom(func(t *rapid.T) List {
		var l List
		draw := func(label string) (prefixes []netip.Prefix) {
			return set(rapid.SliceOfN(rapid.SampledFrom(somePrefixes), 1, 3).Draw(t, label)...)
		}
		switch rapid.IntRange(0, 3).Draw(t, "shape") {
		case 0:
			l.Deny = draw("deny")
		case 1:
			l.Allow, l.Deny = draw("allow"), draw("deny")
		default:
			l.Allow = draw("allow")
		}
		return l
	})

	questions = rapid.Custom(func(t *rapid.T) question {
		q := question{
			rules: Rules{
				Roles:  rapid.MapOfN(rapid.SampledFrom(someRoles), lists, 0, 3).Draw(t, "roles"),
				People: rapid.MapOfN(rapid.SampledFrom(somePeople), lists, 0, 2).Draw(t, "people"),
			},
			person: rapid.SampledFrom(somePeople).Draw(t, "person"),
			roles:  rapid.SliceOfNDistinct(rapid.SampledFrom(someRoles), 0, 3, rapid.ID[string]).Draw(t, "roles of the person"),
		}
		if rapid.Bool().Draw(t, "company has rules") {
			q.rules.Company = lists.Draw(t, "company")
		}
		if text := rapid.SampledFrom(append(someAddrs, "")).Draw(t, "addr"); text != "" {
			q.addr = netip.MustParseAddr(text)
		}
		return q
	})
)

func (q question) answer(t require.TestingT) (string, Rules) {
	rules, err := q.rules.normal()
	require.NoError(t, err)
	return compile(Document{Rules: rules}).decide(bareAddr(q.addr), q.person, q.roles).code(), rules
}

func TestDecisionsAreLikeTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := questions.Draw(t, "question")
		got, rules := q.answer(t)
		require.Equal(t, modelCode(rules, q.addr, q.person, q.roles, noFault), got, "%+v", rules)
	})
}

// Each of these models makes one mistake, and the comparison must notice it.
func TestFaultyDecisionsAreFound(t *testing.T) {
	type answered struct {
		question
		got string
	}
	var drawn []answered
	for i := range 3000 {
		q := questions.Example(i)
		var got string
		got, q.rules = q.answer(t)
		drawn = append(drawn, answered{q, got})
	}
	for _, f := range []fault{
		noFault, keepsMapped, keepsZones, allowsUnknown, forgetsCompanyDeny, forgetsRoleDeny, forgetsPersonDeny,
		anyRole, firstRole, addsUp, rolesOverPerson, companyAlways,
	} {
		differences, yes := 0, 0
		for _, r := range drawn {
			if r.got == "" {
				yes++
			}
			if modelCode(r.rules, r.addr, r.person, r.roles, f) != r.got {
				differences++
			}
		}
		t.Logf("%-60s %4d differences, %d allowed", f, differences, yes)
		require.Equal(t, f == noFault, differences == 0, string(f))
		require.Greater(t, yes, 600, "too few are allowed for the comparison to mean much")
	}
}

// Requests go on while rules change; each is decided by one version.
func TestHotReload(t *testing.T) {
	f := newFilter(t, crmguardtest.NewKeys(), someStaff, nil)
	require.NoError(t, f.Load(t.Context(), "acme", nil))
	home, work := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("203.0.113.0/24")
	var documents []Document
	for i := range 50 {
		allow, deny := home, work
		if i%2 == 0 {
			allow, deny = work, home
		}
		d := prepared(t, f, Rules{Company: List{Allow: []netip.Prefix{allow}, Deny: []netip.Prefix{deny}}})
		d.Version = int64(i + 1) // Prepare counts from what is in force
		require.NoError(t, f.seal(t.Context(), &d))
		documents = append(documents, d)
	}
	var readers, writers sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		readers.Go(func() {
			last := int64(0)
			for {
				a, err := f.Explain(context.Background(), person("pavel", "203.0.113.7"))
				if err != nil || a.Version < last || a.Version > 0 && a.Allowed != (a.Version%2 == 1) {
					t.Errorf("after %d: %v %v", last, a, err)
					return
				}
				last = a.Version
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range documents {
		writers.Go(func() {
			err := f.Load(context.Background(), "acme", documents[i].JSON)
			if err != nil && !errors.Is(err, ErrOlder) {
				t.Error(err)
			}
			_ = f.Load(context.Background(), fmt.Sprint("tenant", i), nil)
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	d, ok := f.InForce("acme")
	require.True(t, ok)
	require.EqualValues(t, 50, d.Version, "whichever came last, the highest version is in force")
	for i := range documents {
		_, ok := f.InForce(fmt.Sprint("tenant", i))
		require.True(t, ok)
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	f := inForce(t, someRules)
	for _, s := range []crmguard.Subject{
		person("pavel", "::ffff:203.0.113.7"), person("boris", "203.0.113.7", "seller", "head"), person("igor", "198.51.100.77"),
		person("anna", "192.0.2.7"), person("pavel", "2001:db8::7%eth0"),
	} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if err := f.Check(context.Background(), s, crmguard.View, contact); err != nil {
				t.Fatal(err)
			}
		}))
	}
}

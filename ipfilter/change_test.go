package ipfilter

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func TestPrepare(t *testing.T) {
	ctx := func(s crmguard.Subject) context.Context { return crmguard.WithSubject(context.Background(), s) }
	officeOnly := Rules{Company: List{Allow: set("203.0.113.0/24")}}
	ownersElsewhere := Rules{Company: List{Allow: set("203.0.113.0/24")}, Roles: map[string]List{"owner": {Allow: set("192.0.2.0/24")}}}
	for _, tt := range []struct {
		name   string
		author crmguard.Subject
		rules  Rules
		owners []Owner
		want   string // start of the error; "": none
		rest   []string
	}{
		{"everybody stays in", person("anna", office), officeOnly, []Owner{{"olga", addrs(office)}}, "", nil},
		{"mapped addresses", person("anna", "::ffff:203.0.113.7"), officeOnly, []Owner{{"olga", addrs("::ffff:203.0.113.8")}}, "", nil},
		{"no rules any more", person("anna", evil), Rules{}, []Owner{{"olga", addrs(evil)}}, "", nil},
		{
			"the author", person("anna", evil), officeOnly, []Owner{{"olga", addrs(office)}},
			"ipfilter: the change locks out: its author could not go on: 198.51.100.9 is in no prefix that the company allows; rules 1", nil,
		},
		{
			"the author by a role", person("anna", office), Rules{Roles: map[string]List{"seller": {Deny: set("203.0.113.7/32")}}}, []Owner{{"olga", addrs(office)}},
			"ipfilter: the change locks out: its author could not go on: 203.0.113.7 is in 203.0.113.7/32, which role seller denies; rules 1", nil,
		},
		{
			"the author without address", person("anna", ""), officeOnly, []Owner{{"olga", addrs(office)}},
			"ipfilter: the change locks out: its author could not go on: the address is not known", nil,
		},
		{
			"the only owner", person("anna", office), ownersElsewhere, []Owner{{"olga", addrs(office, evil)}},
			"ipfilter: the change locks out: no owner is known to get in; olga: 203.0.113.7 is in no prefix that role owner allows", []string{"olga: 198.51.100.9 is in no"},
		},
		{"an owner who comes from elsewhere too", person("anna", office), ownersElsewhere, []Owner{{"olga", addrs(office, "192.0.2.1")}}, "", nil},
		{
			"the last owner: the other is nowhere known", person("anna", office), ownersElsewhere, []Owner{{ID: "oleg"}, {"olga", addrs(office)}},
			"ipfilter: the change locks out: no owner is known to get in; oleg: no known address; olga: 203.0.113.7 is in no", nil,
		},
		{"one of two owners", person("anna", office), ownersElsewhere, []Owner{{"olga", addrs(office)}, {"oleg", addrs(office)}}, "", nil},
		{"the author is the owner", person("olga", office), officeOnly, []Owner{{ID: "olga"}}, "", nil},
		{
			"the author is the owner, and has no way back", person("olga", office), ownersElsewhere, []Owner{{ID: "olga"}},
			"ipfilter: the change locks out: its author could not go on: 203.0.113.7 is in no prefix that role owner allows; rules 1; no owner is known to get in; olga: 203.0.113.7", nil,
		},
		{
			"the address of another author is no owner's", person("anna", office), officeOnly, []Owner{{ID: "olga"}},
			"ipfilter: the change locks out: no owner is known to get in; olga: no known address", nil,
		},
		{"a job of the host", crmguard.Subject{Tenant: "acme", ID: "system:x", Kind: crmguard.KindSystem}, officeOnly, []Owner{{"olga", addrs(office)}}, "", nil},
		{
			"a job of the host and the owner", crmguard.Subject{Tenant: "acme", ID: "system:x", Kind: crmguard.KindSystem}, officeOnly, []Owner{{"olga", addrs(evil)}},
			"ipfilter: the change locks out: no owner is known to get in; olga: 198.51.100.9 is in no", nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFilter(t, crmguardtest.NewKeys(), someStaff, nil)
			require.NoError(t, f.Load(t.Context(), "acme", nil))
			d, err := f.Prepare(ctx(tt.author), tt.rules, tt.owners, nil)
			if tt.want == "" {
				require.NoError(t, err)
				require.Nil(t, d.Lockout)
			} else {
				lockout, ok := errors.AsType[*LockoutError](err)
				require.True(t, ok, "%v", err)
				require.True(t, strings.HasPrefix(err.Error(), tt.want), "%v", err)
				for _, rest := range tt.rest {
					require.ErrorContains(t, err, rest)
				}
				require.Zero(t, d)

				d, err = f.Prepare(ctx(tt.author), tt.rules, tt.owners, &ChangeOptions{Force: true})
				require.NoError(t, err)
				require.Equal(t, lockout, d.Lockout, "what was forced is known")
			}
			// What Prepare said is what happens, and nothing has happened yet.
			require.Empty(t, code(t, f, person("nobody", "8.8.8.8")))
			require.NoError(t, f.Load(t.Context(), "acme", d.JSON))
			a, err := f.Explain(t.Context(), tt.author)
			require.NoError(t, err)
			require.Equal(t, a.Allowed, d.Lockout == nil || d.Lockout.Author == nil)
		})
	}
}

func TestPrepareNeedsItsArguments(t *testing.T) {
	f := inForce(t, Rules{})
	owners := []Owner{{"olga", addrs(office)}}
	anna := crmguard.WithSubject(t.Context(), person("anna", office))
	prepare := func(f *Filter, ctx context.Context, owners []Owner) error {
		_, err := f.Prepare(ctx, Rules{Roles: map[string]List{"x": {Deny: set("10.0.0.0/8")}}}, owners, &ChangeOptions{Force: true})
		return err
	}
	require.NoError(t, prepare(f, anna, owners))
	require.Error(t, prepare(f, t.Context(), owners), "nobody acts")
	require.Error(t, prepare(f, crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme"}), owners))
	require.Error(t, prepare(f, anna, nil), "no owners")
	require.Error(t, prepare(f, anna, []Owner{{Addrs: addrs(office)}}), "an owner without ID")
	foreign := person("anna", office)
	foreign.Tenant = "other"
	require.ErrorIs(t, prepare(f, crmguard.WithSubject(t.Context(), foreign), owners), errNotLoaded)

	down := inForce(t, Rules{})
	down.directory = staff{"down": nil}
	require.ErrorIs(t, prepare(down, anna, owners), errDirectory, "who is locked out is not known: not even by force")

	keys := crmguardtest.NewKeys()
	broken := newFilter(t, keys, someStaff, nil)
	require.NoError(t, broken.Load(t.Context(), "acme", nil))
	keys.Fail(errMAC)
	require.ErrorIs(t, prepare(broken, anna, owners), errMAC)
}

// Sign-in asks before roles are known. Rules by role that would not hold there are
// not accepted.
func TestRulesByRoleNeedADirectory(t *testing.T) {
	keys := crmguardtest.NewKeys()
	with, without := newFilter(t, keys, someStaff, nil), newFilter(t, keys, nil, nil)
	byRole := Rules{Roles: map[string]List{"seller": {Deny: set("198.51.100.0/24")}}}
	for _, f := range []*Filter{with, without} {
		require.NoError(t, f.Load(t.Context(), "acme", nil))
	}
	d := prepared(t, with, byRole)
	require.NoError(t, with.Load(t.Context(), "acme", d.JSON))
	require.Equal(t, CodeRoleDenied, code(t, with, person("anna", evil)))

	require.ErrorContains(t, without.Load(t.Context(), "acme", d.JSON), "need a directory")
	_, err := without.Prepare(crmguard.System(t.Context(), "acme", "test"), byRole, anyOwner, &ChangeOptions{Force: true})
	require.ErrorContains(t, err, "need a directory")

	// With the check taken out, the rule would not hold at the door: no roles, no list.
	without.publish("acme", compile(d))
	require.Empty(t, code(t, without, person("anna", evil)))
}

// marks in memory, which a restart of the filter does not forget.
type marks struct {
	mu      sync.Mutex
	highest map[string]int64
	fail    error
}

func (m *marks) Raise(_ context.Context, tenant string, version int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return 0, m.fail
	}
	m.highest[tenant] = max(m.highest[tenant], version)
	return m.highest[tenant], nil
}

func TestOldDocumentsAreRefused(t *testing.T) {
	keys := crmguardtest.NewKeys()
	m := &marks{highest: map[string]int64{}}
	f := newFilter(t, keys, someStaff, m)
	require.NoError(t, f.Load(t.Context(), "acme", nil))
	var documents []Document
	for range 3 {
		d := prepared(t, f, someRules)
		documents = append(documents, d)
		require.NoError(t, f.Load(t.Context(), "acme", d.JSON))
		require.NoError(t, f.Load(t.Context(), "acme", d.JSON), "again changes nothing")
	}
	require.EqualValues(t, 3, documents[2].Version)
	require.NotEqual(t, documents[1].Digest, documents[2].Digest, "the version is part of it")

	// Two changes prepared at once have one version; the second is not accepted.
	first, second := prepared(t, f, Rules{}), prepared(t, f, Rules{Company: List{Deny: set("10.0.0.0/8")}})
	require.Equal(t, first.Version, second.Version)
	require.NoError(t, f.Load(t.Context(), "acme", first.JSON))
	require.ErrorIs(t, f.Load(t.Context(), "acme", second.JSON), ErrOlder)

	old := map[string][]byte{"none": nil, "1": documents[0].JSON, "3": documents[2].JSON}
	for name, text := range old {
		require.ErrorIs(t, f.Load(t.Context(), "acme", text), ErrOlder, name)
		require.ErrorIs(t, newFilter(t, keys, someStaff, m).Load(t.Context(), "acme", text), ErrOlder, "%s, after a restart", name)
	}
	now, _ := f.InForce("acme")
	require.EqualValues(t, 4, now.Version)
	require.NoError(t, newFilter(t, keys, someStaff, m).Load(t.Context(), "acme", first.JSON))
	require.NoError(t, f.Load(t.Context(), "other", nil), "marks are by tenant")

	// Without marks a restart forgets: that is what marks are for.
	for name, text := range old {
		require.NoError(t, newFilter(t, keys, someStaff, nil).Load(t.Context(), "acme", text), name)
	}

	m.fail = errors.New("keys locked")
	restarted := newFilter(t, keys, someStaff, m)
	require.ErrorIs(t, restarted.Load(t.Context(), "acme", first.JSON), m.fail)
	require.Error(t, restarted.Check(t.Context(), person("anna", office), crmguard.View, contact), "nothing is in force")
}

// Fifty nodes that load what comes to them in any order end with the newest.
func TestMarksAreRaced(t *testing.T) {
	keys := crmguardtest.NewKeys()
	m := &marks{highest: map[string]int64{}}
	f := newFilter(t, keys, someStaff, nil)
	require.NoError(t, f.Load(t.Context(), "acme", nil))
	documents := make([][]byte, 10)
	for i := range documents {
		d := prepared(t, f, someRules)
		require.NoError(t, f.Load(t.Context(), "acme", d.JSON))
		documents[i] = d.JSON
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			node := newFilter(t, keys, someStaff, m)
			for j := range documents {
				if err := node.Load(context.Background(), "acme", documents[(i+j)%len(documents)]); err != nil && !errors.Is(err, ErrOlder) {
					t.Error(err)
				}
			}
			if d, ok := node.InForce("acme"); !ok || d.Version != 10 {
				t.Errorf("version %d", d.Version)
			}
		})
	}
	wg.Wait()
}

func TestLoadRefusesATenantWithoutName(t *testing.T) {
	f := newFilter(t, crmguardtest.NewKeys(), nil, nil)
	require.Error(t, f.Load(t.Context(), "", nil))
}

package mfa

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// attack is what a writer of the database does to Anna's rows. Boris, who does
// it, has an app and recovery codes himself, and Anna's password.
type attack func(t *testing.T, r *rig, anna, boris *phone)

func (r *rig) person(name string) *memoryPerson { return r.store.persons[personKey{"acme", name}] }

// attacks end with Boris being let in as Anna with a code of his own, if nothing
// notices.
var attacks = map[string]attack{
	"adds his row": func(t *testing.T, r *rig, _, boris *phone) {
		p := r.person("anna")
		p.rows = append(p.rows, *r.row(t, "boris", boris.id))
	},
	"adds his row in its place": func(t *testing.T, r *rig, anna, boris *phone) {
		*r.row(t, "anna", anna.id) = *r.row(t, "boris", boris.id)
	},
	"gives her all that is his": func(_ *testing.T, r *rig, _, _ *phone) {
		r.person("anna").rows = slices.Clone(r.person("boris").rows)
	},
	"gives her all that is his, and his MAC": func(_ *testing.T, r *rig, _, _ *phone) {
		budget := r.person("anna").person.Budget
		r.person("anna").rows = slices.Clone(r.person("boris").rows)
		r.person("anna").person = Person{
			Tenant: "acme", ID: "anna", Version: r.person("boris").person.Version, MAC: r.person("boris").person.MAC, Budget: budget,
		}
	},
	"activates what she never confirmed": func(t *testing.T, r *rig, _, boris *phone) {
		e, err := r.Enrol(t.Context(), "acme", "anna", "anna") // with her session, open for a moment
		require.NoError(t, err)
		boris.id, boris.secret = e.ID, e.Secret()
		r.row(t, "anna", e.ID).Active = true
	},
	"brings back an app that was removed": func(t *testing.T, r *rig, _, boris *phone) {
		stolen := r.enrolled(t, "anna")
		row := *r.row(t, "anna", stolen.id)
		require.NoError(t, r.Remove(t.Context(), "acme", "anna", stolen.id))
		r.person("anna").rows = append(r.person("anna").rows, row)
		*boris = *stolen
	},
	"brings back an app after Revoke": func(t *testing.T, r *rig, anna, boris *phone) {
		row := *r.row(t, "anna", anna.id)
		_, err := r.Revoke(t.Context(), "acme", "anna")
		require.NoError(t, err)
		r.person("anna").rows = []Row{row}
		*boris = *anna
	},
	"makes her person anew": func(t *testing.T, r *rig, _, boris *phone) {
		r.person("anna").rows = []Row{*r.row(t, "boris", boris.id)}
		r.person("anna").person = Person{Tenant: "acme", ID: "anna", Version: 1, MAC: Opaque("x")}
	},
}

// blind is a planted fault: a MAC that depends on nothing.
func blind(*Person, []Row) []byte { return nil }

func TestWriterOfTheDatabaseIsNotLetIn(t *testing.T) {
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			anna, boris := r.enrolled(t, "anna"), r.enrolled(t, "boris")
			attack(t, r, anna, boris)
			r.clock.Advance(time.Hour)
			err := r.Verify(t.Context(), "acme", "anna", boris.code(t))
			requireRefused(t, ReasonForged, err)
			_, err = r.Has(t.Context(), "acme", "anna")
			require.ErrorIs(t, err, ErrState, "not: she has none")
			_, err = r.Enrol(t.Context(), "acme", "anna", "anna")
			require.ErrorIs(t, err, ErrState)

			// An administrator revokes, and Anna enrols anew.
			_, err = r.Revoke(t.Context(), "acme", "anna")
			require.NoError(t, err)
			p := r.enrolled(t, "anna")
			require.NoError(t, r.Verify(t.Context(), "acme", "anna", p.code(t)))
		})
	}
	t.Run("planted fault: a MAC of nothing", func(t *testing.T) {
		for _, name := range []string{"activates what she never confirmed", "brings back an app that was removed", "brings back an app after Revoke"} {
			r := newRig(t)
			r.encode = blind
			anna, boris := r.enrolled(t, "anna"), r.enrolled(t, "boris")
			attacks[name](t, r, anna, boris)
			r.clock.Advance(time.Hour)
			require.NoError(t, r.Verify(t.Context(), "acme", "anna", boris.code(t)), "%s: the attack works", name)
		}
	})
	// These are stopped by the sealed secret too, which says whose it is.
	t.Run("planted faults: a MAC of nothing, a secret sealed as hers", func(t *testing.T) {
		for _, name := range []string{"adds his row", "adds his row in its place", "gives her all that is his"} {
			r := newRig(t)
			r.encode = blind
			anna, boris := r.enrolled(t, "anna"), r.enrolled(t, "boris")
			attacks[name](t, r, anna, boris)
			r.clock.Advance(time.Hour)
			require.ErrorIs(t, r.Verify(t.Context(), "acme", "anna", boris.code(t)), errForeignSecret, name)

			row := r.row(t, "anna", boris.id)
			secret, err := r.open(t.Context(), "acme", "boris", row)
			require.NoError(t, err)
			row.Sealed, err = r.keys.Seal(t.Context(), secretPlace("acme", boris.id), secretBytes("anna", secret))
			require.NoError(t, err)
			require.NoError(t, r.Verify(t.Context(), "acme", "anna", boris.code(t)), "%s: the attack works", name)
		}
	})
}

// Whoever removes rows to be let in without a code is not told that there are
// none.
func TestRemovedRowsAreNoticed(t *testing.T) {
	for name, remove := range map[string]func(p *memoryPerson){
		"all rows":       func(p *memoryPerson) { p.rows = nil },
		"one row":        func(p *memoryPerson) { p.rows = p.rows[1:] },
		"her person":     func(p *memoryPerson) { p.person = Person{Tenant: "acme", ID: "anna"} },
		"the activation": func(p *memoryPerson) { p.rows[0].Active = false },
	} {
		r := newRig(t)
		r.enrolled(t, "anna")
		remove(r.person("anna"))
		_, err := r.Has(t.Context(), "acme", "anna")
		require.ErrorIs(t, err, ErrState, name)
	}

	r := newRig(t)
	r.encode = blind
	r.enrolled(t, "anna")
	r.person("anna").rows = nil
	has, err := r.Has(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.False(t, has, "planted fault: the attack works")
}

func TestForgedRecoveryCodes(t *testing.T) {
	for name, attack := range map[string]func(anna, boris *memoryPerson){
		"adds his codes": func(anna, boris *memoryPerson) { anna.rows = append(anna.rows, codesOf(boris)...) },
		"puts his MACs into her rows": func(anna, boris *memoryPerson) {
			his := codesOf(boris)
			for i := range anna.rows {
				if anna.rows[i].Kind == KindRecovery {
					anna.rows[i].Sealed, his = his[0].Sealed, his[1:]
				}
			}
		},
	} {
		r := newRig(t)
		r.enrolled(t, "anna")
		r.enrolled(t, "boris")
		_, err := r.ReplaceRecovery(t.Context(), "acme", "anna")
		require.NoError(t, err)
		codes, err := r.ReplaceRecovery(t.Context(), "acme", "boris")
		require.NoError(t, err)
		attack(r.person("anna"), r.person("boris"))
		r.encode = blind // even then: the MAC of a code names its person and row
		p := r.person("anna")
		p.person.MAC, err = r.keys.MAC(t.Context(), p.person.place(), nil)
		require.NoError(t, err)
		for _, code := range codes.Show()[:5] {
			requireRefused(t, ReasonWrong, r.Recover(t.Context(), "acme", "anna", code))
		}
		require.NotEmpty(t, name)
	}
}

func codesOf(p *memoryPerson) []Row {
	return slices.DeleteFunc(slices.Clone(p.rows), func(r Row) bool { return r.Kind != KindRecovery })
}

// What the documentation says that a writer of the database can do. When one of
// these fails, something has become better, and the documentation has to say so.
func TestWhatStaysReplayable(t *testing.T) {
	t.Run("a code within its minute and a half, when the last step is set back", func(t *testing.T) {
		r := newRig(t)
		p := r.enrolled(t, "anna")
		code := p.code(t)
		require.NoError(t, r.Verify(t.Context(), "acme", "anna", code))
		requireRefused(t, ReasonUsed, r.Verify(t.Context(), "acme", "anna", code))
		r.row(t, "anna", p.id).Step = 0
		require.NoError(t, r.Verify(t.Context(), "acme", "anna", code))
		r.row(t, "anna", p.id).Step = 0
		r.clock.Advance(time.Minute)
		requireRefused(t, ReasonWrong, r.Verify(t.Context(), "acme", "anna", code))
	})
	t.Run("everything of a moment together", func(t *testing.T) {
		r := newRig(t)
		lost := r.enrolled(t, "anna")
		person, rows := r.person("anna").person, slices.Clone(r.person("anna").rows)
		_, err := r.Revoke(t.Context(), "acme", "anna")
		require.NoError(t, err)
		r.person("anna").person, r.person("anna").rows = person, rows
		require.NoError(t, r.Verify(t.Context(), "acme", "anna", lost.code(t)))
	})
	t.Run("everything deleted", func(t *testing.T) {
		r := newRig(t)
		r.enrolled(t, "anna")
		delete(r.store.persons, personKey{"acme", "anna"})
		has, err := r.Has(t.Context(), "acme", "anna")
		require.NoError(t, err)
		require.False(t, has)
	})
}

func TestForgedRowsAreLogged(t *testing.T) {
	r := newRig(t)
	var out bytes.Buffer
	r.Factors.log = slog.New(slog.NewTextHandler(&out, nil))
	p := r.enrolled(t, "anna")
	r.row(t, "anna", p.id).Created = noon.Add(time.Hour)
	requireRefused(t, ReasonForged, r.Verify(context.Background(), "acme", "anna", p.code(t)))
	require.Contains(t, out.String(), "not genuine")
	require.Contains(t, out.String(), "person=anna")
}

// A used code is refused because the store advances once, and by nothing else.
func TestReplayWithFaultyStore(t *testing.T) {
	r := newRig(t)
	p := r.enrolled(t, "anna")
	r.Factors.store = &everAdvancing{r.store}
	require.NoError(t, r.Verify(t.Context(), "acme", "anna", p.code(t)))
	require.NoError(t, r.Verify(t.Context(), "acme", "anna", p.code(t)), "planted fault: the replay works")
}

type everAdvancing struct{ *Memory }

func (*everAdvancing) Advance(context.Context, string, string, string, int64) (bool, error) {
	return true, nil
}

// Fifty wrong codes at once get five comparisons; with a budget that is taken
// after comparing, or not at all, they would get fifty.
func TestParallelGuesses(t *testing.T) {
	guess := func(r *rig) (compared int) {
		p := r.enrolled(t, "anna")
		code := wrong(t, p)
		results := make(chan error, 50)
		for range cap(results) {
			go func() { results <- r.Verify(context.Background(), "acme", "anna", code) }()
		}
		for range cap(results) {
			if err := <-results; reasonOf(err) == ReasonWrong {
				compared++
			}
		}
		return compared
	}
	require.Equal(t, freeAttempts, guess(newRig(t)))
	faulty := newRig(t)
	faulty.Factors.store = &neverCounting{faulty.store}
	require.Equal(t, 50, guess(faulty), "planted fault: all are compared")
}

type neverCounting struct{ *Memory }

func (*neverCounting) Attempt(context.Context, string, string, Budget, Budget) (bool, error) {
	return true, nil
}

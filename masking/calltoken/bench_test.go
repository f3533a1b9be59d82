package calltoken

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func BenchmarkIssue(b *testing.B) {
	r := newRig()
	issuer, ctx := r.issuer(b), acting(anna, crmguard.Call, phoneOf17)
	for b.Loop() {
		if _, err := issuer.Issue(ctx, "c17", "101"); err != nil {
			b.Fatal(err)
		}
	}
}

// The token of a call that was made already, with stand-ins for all other parts.
func BenchmarkResolveAgain(b *testing.B) {
	r := newRig()
	token, resolver := r.issue(b).Show(), r.resolver(b)
	for b.Loop() {
		if _, err := resolver.Resolve(context.Background(), "acme", token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	h, body := wire(b)
	key := testKey(b)
	for b.Loop() {
		if _, err := Verify(key, h, body, noon); err != nil {
			b.Fatal(err)
		}
	}
}

// A text that is no token costs whoever is asked for it nothing to speak of.
func TestRefusingWhatIsNoToken(t *testing.T) {
	r := newRig()
	good := r.issue(t).Show()
	for _, text := range []string{good[:30], "x" + good, good + strings.Repeat("A", maxToken)} {
		require.Zero(t, testing.AllocsPerRun(100, func() { parseToken(text) }))
	}
}

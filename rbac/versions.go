package rbac

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/casbin/casbin/v2/persist"
)

// Version is one version of a stored policy: what was changed, when, by whom and why.
type Version struct {
	Number         int64 // the first is 1, and each change adds one; 0: nothing was stored yet
	Time           time.Time
	Tenant, Author string // who acted; empty: nobody did
	Reason         string
	Digest         string // of all rows: what [Engine.Version] says of them

	// Added and Removed are rows, each with its type first. They are left out where a
	// version is only named.
	Added, Removed [][]string
	Whole          bool // Added are all rows: of the first version, and of one that was adopted
}

// Stored is a policy as it is stored, sound or not.
type Stored struct {
	Version Version    // without its rows
	Rules   [][]string // each with its type first
	Where   []string   // where each rule stands, such as "row 17"
}

// Store is an adapter that keeps versions, as that of package rbacsql does. With one
// an [Engine] knows when the policy has changed, never overwrites what somebody else
// changed meanwhile, and tells the history.
type Store interface {
	persist.Adapter

	// Head names the newest version. It is asked often.
	Head(ctx context.Context) (Version, error)

	// Load returns the newest version with all rows.
	Load(ctx context.Context) (Stored, error)

	// Change makes the next version, all of it or nothing: it adds rows, unless they
	// are there, and removes rows, if they are there. Where nothing is left to do it
	// returns was.Version. [ErrChanged] if was is no longer the newest. Author and reason are
	// those of ctx: [crmguard.SubjectFrom] and [ReasonFrom].
	Change(ctx context.Context, was Stored, add, remove [][]string) (Version, error)

	// History returns versions with their rows, the newest first: at most limit of
	// those before one, 0 for the newest.
	History(ctx context.Context, before int64, limit int) ([]Version, error)

	// At returns the rows of a version.
	At(ctx context.Context, version int64) ([][]string, error)
}

// ErrChanged says that somebody else changed the policy meanwhile: look again.
var ErrChanged = errors.New("rbac: the policy was changed meanwhile; look at it again")

// ErrNoVersions says that the adapter keeps no versions: it is no [Store].
var ErrNoVersions = errors.New("rbac: the adapter keeps no versions of the policy")

type reasonKey struct{}

// WithReason returns a context in which a policy is changed for a reason, which
// becomes part of the version and of its entry in the journal.
func WithReason(ctx context.Context, reason string) context.Context {
	return context.WithValue(ctx, reasonKey{}, reason)
}

// ReasonFrom returns the reason of ctx, "" if there is none.
func ReasonFrom(ctx context.Context) string {
	reason, _ := ctx.Value(reasonKey{}).(string)
	return reason
}

// withDefaultReason says at least what was done.
func withDefaultReason(ctx context.Context, reason string) context.Context {
	if ReasonFrom(ctx) != "" {
		return ctx
	}
	return WithReason(ctx, reason)
}

// Digest names rows, each with its type first, in whatever order they come:
// [Engine.Version] of a policy that has them. Equal rows count once.
func Digest(rules [][]string) string {
	encoded := make([]string, 0, len(rules))
	for _, rule := range rules {
		var b []byte
		for _, field := range rowOf("", rule).rule() {
			b = appendField(b, field)
		}
		encoded = append(encoded, string(b))
	}
	slices.Sort(encoded)
	h := newDigest()
	for _, e := range slices.Compact(encoded) {
		h.Write(appendField(nil, e))
	}
	return sumOf(h)
}

// rowOf makes a row of a rule, whose type comes first.
func rowOf(where string, rule []string) row {
	if len(rule) == 0 {
		rule = []string{""}
	}
	return row{where, rule[0], rule[1:]}
}

// rule is the inverse of rowOf.
func (r row) rule() []string { return append([]string{r.kind}, r.fields...) }

// tenant is whose row it is, "" if it is of nobody alone.
func (r row) tenant() string {
	switch {
	case r.kind == "p" && len(r.fields) > 1:
		return r.fields[1]
	case (r.kind == "g" || r.kind == "p2" || r.kind == "p3") && len(r.fields) > 2:
		return r.fields[2]
	case r.kind == "p4" && len(r.fields) > 0:
		return r.fields[0]
	}
	return ""
}

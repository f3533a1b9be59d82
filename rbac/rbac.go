// Package rbac decides who may do what to which records, from an ordinary Casbin
// policy: person, role or department × kind of record × action × scope, where the
// scope says whose records. The same policy becomes a condition in SQL for lists.
//
//	rights, err := rbac.FromCSV(ctx, "policy.csv", &rbac.Options{Org: departments})
//	...
//	err = rights.Check(ctx, subject, crmguard.View, card)          // nil: yes
//	fields, err := rights.Fields(ctx, subject, card, "phone")      // read, write, unmask
//	filter, err := rights.Filter(ctx, subject, crmguard.List, "contacts")
//	where, args, err := filter.SQL(columns, 1)
//	rows, err := db.QueryContext(ctx, "SELECT id, name FROM contacts WHERE "+where, args...)
//
// # Policy
//
// Rows are Casbin's, in the model [Model]; see [StarterPolicy] for a whole one:
//
//	p, role:seller, acme, contacts, view, own, allow
//	p, role:seller, acme, contacts#phone, reveal, own, allow
//	p, u:oleg, acme, contacts, export, all, deny
//	p, role:owner, acme, section:journal, access, all, allow
//	g, u:anna, role:seller, acme
//	g, unit:support, role:seller, acme
//	p2, u:boris, role:seller, acme, 2026-12-31T18:00:00Z
//	p3, u:boris, u:anna, acme, 2026-07-01T00:00:00Z, 2026-07-15T00:00:00Z
//	p4, acme, role:buyer, role:payer
//
// Subjects are u:ID (a person, an integration, or a job of the host, which is
// u:system:REASON and has the rights that rows give it, like anybody else; nobody
// else may be called so), role:NAME and unit:NAME. Roles and units are what g rows
// say, so a team is a unit whose people they name; being a member of a department in
// [Org] places a person in the tree of departments and gives no role.
//
// Scopes are own (the person is responsible for the record), dept (own, or of a
// department of the person), tree (dept, or of a department below), headed (own, or of a
// department that the person heads, or of one below such: a head of one department who
// is a member of another has nothing of that by it), shared (shared
// with the person) and all. A record can be own and shared at once, so rules of both
// apply. One rule that denies outweighs all that allow, in whatever order they
// stand.
//
// A p2 row is a g row of a person that ends: from that moment on it is as if it were
// not there, without a reload, by the clock of this process ([Options].Clock). Roles
// of roles do not end.
//
// A p3 row makes one person the deputy of another for a period: then they have the
// rights of both, each on the records that these are about. See [Engine.Deputize].
//
// A p4 row separates duties: nobody has both roles at the same time, by whatever way, and
// no role is both. A policy that would give both to somebody is refused, and so is the
// grant that would; who has one of the roles, or stands in for who has, does not end that.
// It is about roles: a rule for a person alone is none. That who asked
// for one thing does not approve it no role can say; the host sees to that.
//
// An object is a kind of record, a field of it (kind#field) or a section of the CRM
// (section:NAME, whose scope is always all). Actions are those of package crmguard.
// Asked about a field, View and List want the right "read", and Create, Update and
// Import want "write"; search, reveal, unmask, call, export and erase are rights of
// their own. Only rows that name a field give rights on it; there are no wildcards.
// A question about a field is not one about its record: ask both where both matter.
//
// # Questions
//
// A resource without ID, Owner and Unit is the whole kind: Check says yes if the
// policy allows the action on some records, and Filter narrows the rows. View,
// Reveal, Unmask, Call, Update, Delete and Erase are done to one record: without its
// ID they are denied, as "no-record", for the caller has lost it. A record about to
// be created is asked for with its owner or unit, or with an ID if it has neither;
// Create with nothing asks whether the subject may create any. Moving a record to
// another owner or unit is two questions, before and after.
//
// A decision is the intersection of three: the rights of the subject, the scopes of
// its credential ("contacts:view", "contacts:*", "section:journal:access"; nil
// narrows nothing, empty allows nothing), and the rights of whom it acts for. What
// is shared with that person nobody says, nor, without [Org], the departments: what
// is not known must make no difference, or the answer is no. Subject.Roles are not
// read.
//
// [Engine.Explain] tells for whoever administers rights why the answer is what it is, and
// which rows are missing where it is no. Before a policy is stored, [Engine.Draft] and
// [Engine.WhatIf] tell who would gain and lose what, and which rights nobody would have any
// more; [Engine.MayReplace] tells whether it would be refused. [Engine.Matrix] shows it as a table.
// Before a person leaves, [Engine.ReviewLeaver] tells what the person has, and what
// nobody else has; before one moves, with [Engine.Move], [Engine.ReviewMover] tells what
// stays behind.
//
// # Security notes
//
// What Casbin misreads is refused at load, all of it in one [*PolicyError]: effects
// other than allow and deny, short and long rows, names without a prefix or that
// Casbin could confuse, unknown scopes and actions, cycles and chains of roles
// longer than Casbin follows, an empty policy. When a Reload is refused, what is in
// force and still stored stays. Each version of the policy is immutable: a decision
// never mixes two.
//
// A policy is compiled when it is loaded, and no Casbin enforcer decides. A decision
// costs two look-ups, a short search for each role of the person and of those for whom the
// person stands in, and a step for each role that has ended, whatever is asked, however many
// rules there are and however often a role was given; it allocates nothing, takes no lock, waits
// for no change and remembers nothing, so nobody fills its memory. Grants that ended stay
// stored until they are taken away.
//
// What GrantRole, RevokeRole and Revoke change holds in this process from the next
// question on. Other processes on the same store take it over when [Engine.Watch]
// looks, or Reload is called; with Watch no answer is by a policy that is older than
// the stated bound, and one that cannot be compared with the store for so long
// decides nothing. Departments of the host have such bounds too, see [Org].
//
// A [Store], such as that of package rbacsql, keeps versions: who changed what, when
// and why. Changes are made out of the newest version or not at all, and what was
// changed past the store, or is older than what was in force, is refused. It enters each
// change in a journal; over other adapters the engine does so, see [Options].Journal.
//
// Nobody grants what they lack, nor to themselves: through GrantRole, Move, Deputize,
// Replace and Rollback, and by taking away a role that denies something. It is judged by who acts in
// the context, for everybody whose rights would change, their deputies among them, at each moment until the last
// grant ends. What comes to a deputy is somebody's own, so whoever gives it has it on all records or is
// that person. The host answers for the rest: for who may open these doors at all, which is
// a Check of a right of its own; for calls in the name of a job, or where nobody acts; for
// rows that reach the store past the engine; for owners and departments, which say how far
// own, dept, tree and headed reach; and for taking rights away, be it from the last who has them:
// [Engine.ReviewLeaver] and [Engine.WhatIf] tell.
//
// Owner, Unit and Shared of a resource come from the server's own data. Columns that
// Filter compares hold text and compare byte by byte, as Check does: no
// case-insensitive collations.
//
// # Format and compatibility
//
// docs/formats/rbac.md specifies the rows, the file and the version of a policy. A
// policy that loads here gives the same answers in any Casbin enforcer with [Model]
// and [ScopeRows], save that no enforcer gives what p2 and p3 rows give: there all of them
// have ended. Policies in other Casbin models are asked through [Wrap].
package rbac

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/policylog"
)

// Options are what an [Engine] can do without. Nil is the secure default.
type Options struct {
	// Org knows the departments. Without it the scope dept reaches the units in
	// Subject.Units, the scope tree no more than that, and nobody heads anything.
	Org Org
	// Logger hears of policies that were loaded or refused; nil: slog.Default().
	Logger *slog.Logger
	// Clock tells when grants end; nil: time.Now.
	Clock func() time.Time
	// Journal is told of each change: before and after what this engine changes, and of
	// what it finds changed when it reloads. What cannot be recorded is not given, be it by
	// taking away a role that denies something; to take rights away nobody waits for it. A
	// [Store] has a journal of its own, so with one this is refused.
	Journal crmguard.Recorder
}

// Engine decides by a policy. It is safe for concurrent use.
type Engine struct {
	adapter persist.Adapter
	org     orgCache
	log     *slog.Logger
	clock   func() time.Time
	entries policylog.Log // into no journal if the adapter is a Store, which makes them

	current    atomic.Pointer[snapshot]
	freshUntil atomic.Int64  // uptime after which nothing is decided, 0: never; see watch.go
	store      chan struct{} // full while somebody asks the adapter, see change.go
	watched    watched
	uptime     quickClock

	mu      sync.Mutex // one replacement of current at a time
	leaving []*removals
}

// New loads a policy from a Casbin adapter, such as that of package rbacsql. A
// policy that Casbin would read otherwise than its author meant, or that is
// empty, is refused with a [*PolicyError]. What an adapter itself leaves out is not
// seen: Casbin's string adapter drops malformed rows in silence. To add a row that
// is stored already must be no error to it.
func New(ctx context.Context, adapter persist.Adapter, o *Options) (*Engine, error) {
	if adapter == nil {
		return nil, errors.New("rbac: no adapter")
	}
	if o == nil {
		o = &Options{}
	}
	if _, ok := adapter.(Store); ok && o.Journal != nil {
		return nil, errors.New("rbac: the journal is that of the store: Options.Journal is for adapters that are none")
	}
	e := &Engine{adapter: adapter, log: o.Logger, clock: o.Clock, store: make(chan struct{}, 1), uptime: quickClock{began: time.Now()}}
	e.org.open(o.Org, &e.uptime)
	if e.log == nil {
		e.log = slog.Default()
	}
	if e.clock == nil {
		e.clock = time.Now
	}
	e.entries = policylog.Log{Journal: o.Journal, Logger: e.log, Clock: e.clock}
	if err := e.Reload(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// FromCSV loads a policy from a file in Casbin's format. GrantRole, RevokeRole
// and Revoke write to the file; one process may do so.
func FromCSV(ctx context.Context, path string, o *Options) (*Engine, error) {
	return New(ctx, &csvFile{path: path}, o)
}

// Version names the policy in force by its content, for Event.Policy: equal
// rows, equal version. docs/formats/rbac.md specifies it.
func (e *Engine) Version() string { return e.current.Load().version }

func (e *Engine) now() int64 { return e.clock().Unix() }

// Reload reads the policy again. When it cannot be read, the one in force stays.
// When it is refused, what is in force is narrowed to what is still stored, so that
// nobody keeps a right because of a bad row elsewhere; rules that deny stay until a
// policy is accepted. Either way the logger is told, and the error says why.
func (e *Engine) Reload(ctx context.Context) error {
	err := e.reload(ctx)
	if _, told := errors.AsType[*PolicyError](err); err != nil && !told && e.current.Load() != nil {
		e.log.ErrorContext(ctx, "rbac: the stored policy cannot be used; the one in force stays", "version", e.Version(), "error", err)
	}
	return err
}

// take brings what is stored into force, as Reload says, and returns it. It is called
// with the store locked.
func (e *Engine) take(ctx context.Context) (Stored, error) {
	l := beginLook()
	stored, rows, next, err := e.load(ctx)
	if err == nil && next == nil { // it is in force
		e.saw(l, stored.Version, nil)
		return stored, nil
	}
	if err == nil {
		old := e.current.Load()
		e.put(next)
		e.enterLoaded(ctx, old, next)
		e.saw(l, stored.Version, nil)
		e.log.InfoContext(ctx, "rbac: policy loaded", "version", next.version, "rows", next.rows.len(), "number", stored.Version.Number)
		return stored, nil
	}
	if _, refused := errors.AsType[*PolicyError](err); !refused || e.current.Load() == nil {
		e.missed(err)
		return stored, err
	}
	fewer := e.change(func(old *snapshot) []row { return old.narrowed(rows) })
	e.saw(l, stored.Version, err)
	e.log.ErrorContext(ctx, "rbac: a new policy was refused, of the old one stays in force what is still stored",
		"version", e.Version(), "rows dropped", fewer, "number", stored.Version.Number, "error", err)
	return stored, err
}

// ruleSource is an adapter that can say where each row stands. With a
// *PolicyError about what is no row at all it returns the other rows, so that all
// findings come together. Adapters without it are asked as Casbin asks them, which
// ends at the first malformed row.
type ruleSource interface {
	Rules(ctx context.Context) (where []string, rules [][]string, err error)
}

// load returns the rows that are stored, sound or not, and the policy that they are;
// nil if a [Store] says that it is the one in force.
func (e *Engine) load(ctx context.Context) (Stored, []row, *snapshot, error) {
	stored, rows, err := readRows(ctx, e.adapter)
	refused, _ := errors.AsType[*PolicyError](err)
	if err != nil && refused == nil {
		return Stored{}, nil, nil, err
	}
	if old := e.current.Load(); old != nil && old.version == stored.Version.Digest {
		return stored, rows, nil, nil
	}
	next, err := compileAt(rows, func() int64 { return e.now() + clockSkew })
	if refused != nil {
		if more, ok := errors.AsType[*PolicyError](err); ok {
			refused.Findings = append(refused.Findings, more.Findings...)
		}
		return stored, rows, nil, refused
	}
	return stored, rows, next, err
}

// compile checks rows from outside and builds the snapshot.
func compile(rows []row) (*snapshot, error) {
	set, err := lint(rows)
	if err != nil {
		return nil, err
	}
	if len(set.rules) == 0 {
		return nil, &PolicyError{[]Finding{{Reason: "there is no rule (p row) in it"}}}
	}
	return newSnapshot(set), nil
}

func readRows(ctx context.Context, adapter persist.Adapter) (stored Stored, rows []row, err error) {
	switch source := adapter.(type) {
	case Store:
		stored, err = source.Load(ctx)
	case ruleSource:
		stored.Where, stored.Rules, err = source.Rules(ctx)
	default:
		rows, err = casbinRows(ctx, adapter)
	}
	rows = slices.Grow(rows, len(stored.Rules))
	for i, rule := range stored.Rules {
		rows = append(rows, rowOf(stored.Where[i], rule))
	}
	if err != nil {
		err = fmt.Errorf("rbac: read the policy: %w", err)
	}
	return stored, rows, err
}

// casbinRows reads a policy as Casbin does.
func casbinRows(ctx context.Context, adapter persist.Adapter) (rows []row, err error) {
	m, err := model.NewModelFromString(Model)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	defer func() { // Casbin's helpers for adapters index into rows before they check them
		if r := recover(); r != nil {
			rows, err = nil, fmt.Errorf("the adapter panicked: %v", r)
		}
	}()
	if withContext, ok := adapter.(persist.ContextAdapter); ok {
		err = withContext.LoadPolicyCtx(ctx, m)
	} else {
		err = adapter.LoadPolicy(m)
	}
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"p", "p2", "p3", "p4", "g", "g2"} {
		for i, fields := range m[kind[:1]][kind].Policy {
			rows = append(rows, row{fmt.Sprintf("%s row %d", kind, i+1), kind, fields})
		}
	}
	return rows, nil
}

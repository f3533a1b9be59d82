package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// Policies of companies with rulesPerCompany rules each, for four roles on five kinds of
// records with five actions, and peoplePerCompany people. Each is loaded from the same
// file by both sides.
const (
	rulesPerCompany  = 100
	peoplePerCompany = 10
)

// Sizes that tests of the claims make smaller.
var (
	checkedRules = 10_000    // rbac.check, rbac.check-cached, rbac.floor
	manyRules    = 1_000_000 // rbac.flat, rbac.flat-uniform, rbac.load, rbac.memory
)

const fewRules = 1_000 // what many are compared with

// rbacClaims compare decisions to Casbin's, to the look-ups that they consist of, and to
// Cedar's; and a policy that is in force to one in Casbin.
func rbacClaims() []claim {
	return []claim{
		{name: "rbac.check", unit: "/s", direction: atLeast, limit: 10_000, open: openRightsCheck},
		{name: "rbac.check-cached", unit: "/s", direction: atLeast, limit: 2, open: openRightsCached},
		{name: "rbac.floor", unit: "ns", direction: atMost, limit: 3, open: openRightsFloor},
		{name: "rbac.flat", unit: "ns", direction: atMost, limit: 2, open: openRightsFlat(hotPeople)},
		{name: "rbac.flat-uniform", unit: "ns", direction: atMost, limit: 15, open: openRightsFlat(0)},
		{name: "rbac.cedar", unit: "/s", direction: atLeast, limit: 5, open: openRightsCedar},
		{name: "rbac.load", unit: "s", direction: atMost, limit: 1.5, open: loading(timed)},
		{name: "rbac.memory", unit: "MB", direction: atMost, limit: 1, open: loading(weighed)},
	}
}

func company(i int) string { return "company-" + strconv.Itoa(i) }
func staff(i int) string   { return "person-" + strconv.Itoa(i) }

var (
	dealtWith = []string{"contacts", "deals", "tasks", "invoices", "documents"}
	dealings  = []crmguard.Action{crmguard.View, crmguard.List, crmguard.Create, crmguard.Update, crmguard.Delete}
)

// writePolicy writes a policy of some rules to a file.
func writePolicy(dir string, rules int) (path string, err error) {
	var b strings.Builder
	for i := range rules {
		in, at := company(i/rulesPerCompany), i%rulesPerCompany
		if at < peoplePerCompany {
			fmt.Fprintf(&b, "g, u:%s, role:r%d, %s\n", staff(i/rulesPerCompany*peoplePerCompany+at), at%4, in)
		}
		fmt.Fprintf(&b, "p, role:r%d, %s, %s, %s, tree, allow\n", at%4, in, dealtWith[at/4%5], dealings[at/20])
	}
	path = filepath.Join(dir, strconv.Itoa(rules)+".csv")
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}

// asked is a question that the policies answer with yes.
type asked struct {
	subject  crmguard.Subject
	action   crmguard.Action
	resource crmguard.Resource
}

func askedBy(person int) asked {
	in := company(person / peoplePerCompany)
	return asked{
		crmguard.Subject{Tenant: in, ID: staff(person), Kind: crmguard.KindEmployee},
		crmguard.View,
		crmguard.Resource{Tenant: in, Kind: dealtWith[person%5], ID: "17", Owner: staff(person)},
	}
}

func askedByAll(rules int) []asked {
	all := make([]asked, rules/rulesPerCompany*peoplePerCompany)
	for i := range all {
		all[i] = askedBy(i)
	}
	return all
}

func loadRights(ctx context.Context, path string) (*rbac.Engine, error) {
	return rbac.FromCSV(ctx, path, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
}

func loadCasbin(path string) (*casbin.Enforcer, error) {
	m, err := model.NewModelFromString(rbac.Model)
	if err != nil {
		return nil, err
	}
	e, err := casbin.NewEnforcer(m, fileadapter.NewAdapter(path))
	if err != nil {
		return nil, err
	}
	_, err = e.AddNamedGroupingPolicies("g2", rbac.ScopeRows())
	return e, err
}

// inTurn asks one question after the other, in an order that no cache foresees.
func inTurn(questions []asked, ask func(q *asked) error) func() error {
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(questions)) // #nosec G404 -- the same order every time
	i := 0
	return func() error {
		q := &questions[order[i]]
		if i++; i == len(order) {
			i = 0
		}
		return ask(q)
	}
}

func checkWith(ctx context.Context, c crmguard.Checker) func(q *asked) error {
	return func(q *asked) error { return c.Check(ctx, q.subject, q.action, q.resource) }
}

var errRefused = errors.New("refused")

func enforceWith(enforce func(values ...any) (bool, error)) func(q *asked) error {
	return func(q *asked) error {
		ok, err := enforce("u:"+q.subject.ID, q.resource.Tenant, q.resource.Kind, string(q.action), "own")
		if err == nil && !ok {
			err = errRefused
		}
		return err
	}
}

// aSecond turns the time of one into how many there are in a second.
func aSecond(m measurement) measurement {
	return func(ctx context.Context) (float64, error) {
		ns, err := m(ctx)
		return 1e9 / ns, err
	}
}

// rightsDir is a folder of its own that close removes.
func rightsDir() (dir string, remove func() error, err error) {
	dir, err = os.MkdirTemp("", "claims-rbac")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// checked are both sides with the policy of checkedRules, and who asks them.
func checked(ctx context.Context) (ours *rbac.Engine, peer *casbin.Enforcer, questions []asked, err error) {
	dir, remove, err := rightsDir()
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	path, err := writePolicy(dir, checkedRules)
	if err != nil {
		return nil, nil, nil, err
	}
	if ours, err = loadRights(ctx, path); err != nil {
		return nil, nil, nil, err
	}
	peer, err = loadCasbin(path)
	return ours, peer, askedByAll(checkedRules), err
}

func openRightsCheck(ctx context.Context, _ *servers) (trial, error) {
	ours, peer, questions, err := checked(ctx)
	if err != nil {
		return trial{}, err
	}
	return trial{
		ours: aSecond(perOp(inTurn(questions, checkWith(ctx, ours)))),
		peer: aSecond(perOp(inTurn(questions, enforceWith(peer.Enforce)))),
	}, nil
}

// openRightsCached asks Casbin's CachedEnforcer what it was asked before.
func openRightsCached(ctx context.Context, _ *servers) (trial, error) {
	ours, plain, questions, err := checked(ctx)
	if err != nil {
		return trial{}, err
	}
	cached, err := casbin.NewCachedEnforcer(plain.GetModel())
	if err != nil {
		return trial{}, err
	}
	if err := cached.BuildRoleLinks(); err != nil {
		return trial{}, err
	}
	questions = questions[:100]
	ask := enforceWith(cached.Enforce)
	for i := range questions {
		if err := ask(&questions[i]); err != nil {
			return trial{}, err
		}
	}
	return trial{
		ours: aSecond(perOp(inTurn(questions, checkWith(ctx, ours)))),
		peer: aSecond(perOp(inTurn(questions, ask))),
	}, nil
}

// openRightsFloor looks the tenant, the person and the kind up in maps of strings with as
// many keys, which says nothing about who may do what.
func openRightsFloor(ctx context.Context, _ *servers) (trial, error) {
	ours, _, questions, err := checked(ctx)
	if err != nil {
		return trial{}, err
	}
	bare := map[string]map[string]map[string]bool{}
	for _, q := range questions {
		of := bare[q.subject.Tenant]
		if of == nil {
			of = map[string]map[string]bool{}
			bare[q.subject.Tenant] = of
		}
		of[q.subject.ID] = map[string]bool{}
		for _, kind := range dealtWith {
			of[q.subject.ID][kind] = true
		}
	}
	return trial{
		ours: perOp(inTurn(questions, checkWith(ctx, ours))),
		peer: perOp(inTurn(questions, func(q *asked) error {
			if !bare[q.subject.Tenant][q.subject.ID][q.resource.Kind] {
				return errRefused
			}
			return nil
		})),
	}, nil
}

const hotPeople = 100

// openRightsFlat asks the same of a policy with many rules and of one with few; people
// is how many ask, spread over the whole, 0: everybody.
func openRightsFlat(people int) func(ctx context.Context, s *servers) (trial, error) {
	return func(ctx context.Context, _ *servers) (t trial, err error) {
		dir, remove, err := rightsDir()
		if err != nil {
			return trial{}, err
		}
		defer func() { err = errors.Join(err, remove()) }()
		sides := make([]measurement, 2)
		for i, rules := range []int{manyRules, fewRules} {
			path, err := writePolicy(dir, rules)
			if err != nil {
				return trial{}, err
			}
			e, err := loadRights(ctx, path)
			if err != nil {
				return trial{}, err
			}
			questions := askedByAll(rules)
			if people > 0 {
				chosen := make([]asked, people)
				for i := range chosen {
					chosen[i] = questions[i*len(questions)/people]
				}
				questions = chosen
			}
			sides[i] = perOp(inTurn(questions, checkWith(ctx, e)))
		}
		return trial{ours: sides[0], peer: sides[1]}, nil
	}
}

// loading loads a policy of many rules by ours and by Casbin, and measures each.
func loading(measured func(load func() (any, error)) measurement) func(context.Context, *servers) (trial, error) {
	return func(ctx context.Context, _ *servers) (trial, error) {
		dir, remove, err := rightsDir()
		if err != nil {
			return trial{}, err
		}
		path, err := writePolicy(dir, manyRules)
		if err != nil {
			return trial{}, errors.Join(err, remove())
		}
		return trial{
			ours:  measured(func() (any, error) { return loadRights(ctx, path) }),
			peer:  measured(func() (any, error) { return loadCasbin(path) }),
			close: remove,
		}, nil
	}
}

// timed is how many seconds it takes until the policy can be asked.
func timed(load func() (any, error)) measurement {
	return func(context.Context) (float64, error) {
		runtime.GC() // of what the other side left
		start := time.Now()
		_, err := load()
		return time.Since(start).Seconds(), err
	}
}

// weighed is what is left of the load after the garbage was collected, in MB.
func weighed(load func() (any, error)) measurement {
	return counted(func(context.Context) (float64, error) {
		before := heapInUse()
		loaded, err := load()
		after := heapInUse()
		runtime.KeepAlive(loaded)
		return max(float64(after)-float64(before), 1) / 1e6, err
	})
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // the first may leave what has a finalizer
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

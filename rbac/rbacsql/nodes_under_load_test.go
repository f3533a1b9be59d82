package rbacsql_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// In these tests person N gets a role in the N-th change, so that what a node decides
// tells how old its policy is.
func numbered(n int) string { return fmt.Sprintf("p%d", n) }

// sighting is what a node decided at a moment: the newest person whom it lets in.
type sighting struct {
	At     int64 // Unix nanoseconds, taken before the question
	Person int
}

func startNode(ctx context.Context, p *processtest.Process) (*rbac.Engine, *rbacsql.Adapter, error) {
	db, err := processtest.Open(ctx, p.Args[0])
	if err != nil {
		return nil, nil, err
	}
	p.AtEnd(db.Close)
	a, err := rbacsql.New(ctx, db, testKeys, &rbacsql.Options{Marks: tableMarks{db}, Logger: quiet().Logger})
	if err != nil {
		return nil, nil, err
	}
	e, err := rbac.New(ctx, a, quiet())
	return e, a, err
}

// reader watches and decides until its input ends, and prints what it saw.
func reader(ctx context.Context, p *processtest.Process) error {
	e, _, err := startNode(ctx, p)
	if err != nil {
		return err
	}
	every, err := time.ParseDuration(p.Args[1])
	if err != nil {
		return err
	}
	maxAge, err := time.ParseDuration(p.Args[2])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed
		cancel()
	}()
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { _ = e.Watch(ctx, &rbac.WatchOptions{Every: every, MaxAge: maxAge}) })
	for began := e.Status().Looked; e.Status().Looked.Equal(began) && ctx.Err() == nil; { // until it watches
		time.Sleep(time.Millisecond)
	}
	out := json.NewEncoder(os.Stdout)
	last := 0
	for ctx.Err() == nil {
		at := time.Now().UnixNano()
		err := list(e, numbered(last+1))
		if err == nil {
			last++
			continue
		}
		if _, no := errors.AsType[*crmguard.Denial](err); no { // else it is stale, and says nothing
			if err := out.Encode(sighting{at, last}); err != nil {
				return err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// writer lets one more person in with each change, until its input ends, and prints
// since when that holds.
func writer(ctx context.Context, p *processtest.Process) error {
	e, _, err := startNode(ctx, p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(crmguard.System(ctx, "default", "test"))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	out := json.NewEncoder(os.Stdout)
	for n := 1; ctx.Err() == nil; n++ {
		if err := e.GrantRole(context.WithoutCancel(ctx), "default", numbered(n), "seller"); err != nil {
			return err
		}
		if err := out.Encode(sighting{time.Now().UnixNano(), n}); err != nil {
			return err
		}
	}
	return nil
}

// child is a process whose lines are collected.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.Closer
	first chan struct{} // closed with its first line, or its end
	done  chan struct{}
	saw   []sighting
}

func startChild(t *testing.T, task string, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: processtest.Command(t, task, args...), first: make(chan struct{}), done: make(chan struct{})}
	c.cmd.Stderr = os.Stderr
	var err error
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.done)
		first := sync.OnceFunc(func() { close(c.first) })
		defer first()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var s sighting
			if json.Unmarshal(lines.Bytes(), &s) == nil {
				c.saw = append(c.saw, s)
				first()
			}
		}
	}()
	return c
}

func (c *child) end() []sighting {
	c.t.Helper()
	require.NoError(c.t, c.in.Close())
	<-c.done
	require.NoError(c.t, c.cmd.Wait())
	return c.saw
}

// tooOld counts answers by a policy that was older than the bound.
func tooOld(changes, answers []sighting, bound time.Duration) (n int) {
	for _, a := range answers {
		must := 0
		for _, c := range changes {
			if c.At < a.At-int64(bound) {
				must = c.Person
			}
		}
		if a.Person < must {
			n++
		}
	}
	return n
}

// Nodes decide while another one changes the policy, and one of them is held up for
// longer than the bound. None answers by a policy that is older than the bound. The
// planted fault is a node that looks too seldom, and whose own bound would allow that.
func TestNoNodeAnswersByAnOldPolicy(t *testing.T) {
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		const bound = 800 * time.Millisecond
		db, err := processtest.Open(t.Context(), database)
		require.NoError(t, err)
		open(t, db, nil, rbac.StarterPolicy())
		_, err = newTableMarks(t.Context(), db)
		require.NoError(t, err)
		require.NoError(t, db.Close())

		write := startChild(t, "write", database)
		good, held := startChild(t, "read", database, "100ms", bound.String()), startChild(t, "read", database, "100ms", bound.String())
		faulty := startChild(t, "read", database, "1h", "2h")
		for _, c := range []*child{write, good, held, faulty} {
			<-c.first
		}
		for range 2 {
			time.Sleep(bound / 2)
			require.NoError(t, hold(held.cmd.Process, true))
			time.Sleep(2 * bound)
			require.NoError(t, hold(held.cmd.Process, false))
		}
		readers := map[string][]sighting{"good": good.end(), "held up": held.end()}
		bad := faulty.end()
		changes := write.end()
		t.Logf("%d changes", len(changes))
		require.NotEmpty(t, changes)
		for name, answers := range readers {
			require.NotEmpty(t, answers, name)
			require.Zero(t, tooOld(changes, answers, bound), "%s, of %d answers", name, len(answers))
		}
		require.NotZero(t, tooOld(changes, bad, bound), "planted fault")
	})
}

// changer gives and takes a role for ever, and prints what was acknowledged.
func changer(ctx context.Context, p *processtest.Process) error {
	e, _, err := startNode(ctx, p)
	if err != nil {
		return err
	}
	ctx = crmguard.System(ctx, "default", "test")
	for n := 0; ; n++ {
		id := numbered(os.Getpid()*3000 + n)
		if err := e.GrantRole(ctx, "default", id, "seller"); err != nil {
			return err
		}
		fmt.Println("granted", id)
		if n%3 == 2 {
			if _, err := e.Revoke(ctx, "default", id); err != nil {
				return err
			}
			fmt.Println("revoked", id)
		}
	}
}

// Processes are killed at any point of a change. What they acknowledged is there, the
// policy is genuine, no version is missing, and the next process goes on.
func TestKilledInTheMiddleOfAChange(t *testing.T) {
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		db, err := processtest.Open(t.Context(), database)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		open(t, db, nil, rbac.StarterPolicy())
		marks, err := newTableMarks(t.Context(), db)
		require.NoError(t, err)
		lines := processtest.Kill(t, 100*time.Millisecond, "change", database)

		a, err := rbacsql.New(t.Context(), db, testKeys, &rbacsql.Options{Marks: marks})
		require.NoError(t, err)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		acknowledged := map[string]bool{}
		for _, line := range lines {
			what, id, _ := strings.Cut(line, " ")
			acknowledged[id] = what == "granted"
		}
		for id, granted := range acknowledged {
			if n, err := strconv.Atoi(id[1:]); err == nil && granted && n%3000%3 == 2 {
				continue // the change that takes it away may have been stored and not told
			}
			require.Equal(t, granted, mayList(e, id), id)
		}
		head := e.Status().Stored.Number
		var versions []rbac.Version
		for before := int64(0); ; before = versions[len(versions)-1].Number {
			page, err := a.History(t.Context(), before, 200)
			require.NoError(t, err)
			if len(page) == 0 {
				break
			}
			versions = append(versions, page...)
		}
		for i, v := range versions {
			require.Equal(t, head-int64(i), v.Number)
		}
		require.Equal(t, int64(1), versions[len(versions)-1].Number)
		require.GreaterOrEqual(t, len(versions), len(lines))
		was, err := a.At(t.Context(), head)
		require.NoError(t, err)
		require.Equal(t, versions[0].Digest, rbac.Digest(was))

		// planted fault: a change of which only half is stored is noticed
		d := table{t, db}
		d.exec(`DELETE FROM casbin_version WHERE number = $1`, head)
		_, err = a.Load(t.Context())
		require.ErrorIs(t, err, rbacsql.ErrOlder)
		fresh, err := rbacsql.New(t.Context(), db, testKeys, nil)
		require.NoError(t, err)
		_, err = fresh.Load(t.Context())
		require.ErrorIs(t, err, rbacsql.ErrTampered)
	})
}

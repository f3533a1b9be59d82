package quotasql_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotasql"
)

const childEnv = "CRMGUARD_QUOTA_CHILD"

func TestMain(m *testing.M) {
	if url := os.Getenv(childEnv); url != "" {
		if err := child(url, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	nodes    = 4
	perNode  = 50
	raceHard = 30
)

// race takes clients of its own, and all nodes' common ones, in many goroutines.
// It prints how many passed and the thresholds that told.
func race(ctx context.Context, s quota.Store, node string) (string, error) {
	limits := []quota.Limit{{Counter: "records view contacts", Soft: 20, Hard: raceHard}}
	var passed, refused atomic.Int64
	var fired [4]atomic.Int64
	errs := make([]error, perNode)
	var wg sync.WaitGroup
	for n := range perNode {
		wg.Go(func() {
			taken, err := s.Take(ctx, quota.Taking{
				Tenant: "acme", Person: "anna", Day: 20_500, Limits: limits, Attempts: quota.Limit{Counter: quota.AttemptsCounter},
				Items: []string{"common", node + strconv.Itoa(n)},
			})
			errs[n] = err
			if taken.Refused == "" {
				passed.Add(1)
			} else {
				refused.Add(1)
			}
			for _, f := range taken.Fired {
				fired[f.Level].Add(1)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintln(passed.Load(), refused.Load(), fired[quota.Soft].Load(), fired[quota.Hard].Load()), nil
}

func child(url, node string) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(10)
	s, err := quotasql.New(context.Background(), db, nil)
	if err != nil {
		return err
	}
	line, err := race(context.Background(), s, node)
	fmt.Print(line)
	return err
}

// Four processes with fifty goroutines each: as many distinct clients pass as the
// norm says, and each threshold tells once.
func TestProcessesShareANorm(t *testing.T) {
	url := sqldbtest.PostgresURL(t)
	self, err := os.Executable()
	require.NoError(t, err)
	var sum [4]int
	outputs := make([]bytes.Buffer, nodes)
	var commands []*exec.Cmd
	for n := range nodes {
		cmd := exec.CommandContext(t.Context(), self, "node"+strconv.Itoa(n)+"-")
		cmd.Env = append(os.Environ(), childEnv+"="+url)
		cmd.Stdout, cmd.Stderr = &outputs[n], os.Stderr
		require.NoError(t, cmd.Start())
		commands = append(commands, cmd)
	}
	for n, cmd := range commands {
		require.NoError(t, cmd.Wait())
		fields := strings.Fields(outputs[n].String())
		require.Len(t, fields, len(sum))
		for i, field := range fields {
			value, err := strconv.Atoi(field)
			require.NoError(t, err)
			sum[i] += value
		}
	}
	require.Equal(t, [4]int{raceHard - 1, nodes*perNode - (raceHard - 1), 1, 1}, sum, "one of the distinct clients is common to all")

	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var items, counted int
	require.NoError(t, db.QueryRow(`SELECT COUNT(*), (SELECT n FROM crmguard_quota_counts WHERE counter = 'records view contacts')
		FROM crmguard_quota_items`).Scan(&items, &counted))
	require.Equal(t, [2]int{raceHard, raceHard}, [2]int{items, counted})
}

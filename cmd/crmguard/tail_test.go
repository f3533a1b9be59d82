package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
)

// What is recorded while somebody follows is printed, in order, each once.
func TestTail(t *testing.T) {
	eachName(t, func(t *testing.T, name string) {
		key := t.TempDir() + "/journal.key"
		journal := runningJournal(t, name, key)
		record := func(from, to int) {
			for i := from; i < to; i++ {
				require.NoError(t, journal.Record(t.Context(), view(strconv.Itoa(i))))
			}
		}
		record(0, 5)

		ctx, stop := context.WithCancel(t.Context())
		read, write := io.Pipe()
		var complaint bytes.Buffer
		ended := make(chan int, 1)
		go func() {
			ended <- run(ctx, []string{"audit", "tail", "-db", name, "-key", key + ".pub", "-tenant", "acme", "-n", "2"}, nil, write, &complaint)
			_ = write.Close() // of a pipe in memory
		}()
		lines := bufio.NewScanner(read)
		next := func(want int) {
			require.True(t, lines.Scan(), complaint.String())
			require.Regexp(t, `^`+strconv.Itoa(want)+`  .*  contacts/`+strconv.Itoa(want)+`  `, lines.Text())
		}
		next(3)
		next(4)
		record(5, 9)
		for i := 5; i < 9; i++ {
			next(i)
		}
		record(9, 10)
		next(9)
		stop()
		require.False(t, lines.Scan())
		require.Equal(t, good, <-ended, complaint.String())
	})
}

// A damaged entry is told of once, and holds nobody up; a filter is asked of each.
func TestTailOverDamage(t *testing.T) {
	dir := t.TempDir()
	name, key := dir+"/crm.db", dir+"/journal.key"
	journal := runningJournal(t, name, key)
	for i := range 30 {
		require.NoError(t, journal.Record(t.Context(), view(strconv.Itoa(i))))
	}
	require.NoError(t, execute(t.Context(), []string{name, `UPDATE crmguard_audit_entries SET record = x'01' WHERE seq = 27`}))
	ctx, stop := context.WithCancel(t.Context())
	var out, complaint racetest.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"audit", "tail", "-db", name, "-key", key + ".pub", "-tenant", "acme", "-person", "anna", "-format", "jsonl", "-n", "5"}, nil, &out, &complaint)
	}()
	require.Eventually(t, func() bool { return strings.Count(out.String(), "\n") == 4 }, time.Minute, time.Millisecond)
	other := view("x")
	other.Subject.ID = "boris"
	require.NoError(t, journal.Record(t.Context(), other))
	require.NoError(t, journal.Record(t.Context(), view("30")))
	require.Eventually(t, func() bool { return strings.Count(out.String(), "\n") == 5 }, time.Minute, time.Millisecond)
	stop()
	require.Equal(t, tampered, <-ended)
	var seqs []int
	for line := range strings.Lines(out.String()) {
		var entry struct{ Seq int }
		require.NoError(t, json.Unmarshal([]byte(line), &entry))
		seqs = append(seqs, entry.Seq)
	}
	require.Equal(t, []int{25, 26, 28, 29, 31}, seqs)
	require.Equal(t, 1, strings.Count(complaint.String(), "entry 27"), complaint.String())
}

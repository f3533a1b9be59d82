package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
)

// What is recorded while somebody follows is printed, in order, each once.
func TestTail(t *testing.T) {
	eachName(t, func(t *testing.T, name string) {
		journal := runningJournal(t, name, t.TempDir()+"/journal.key")
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
			ended <- run(ctx, []string{"audit", "tail", "-db", name, "-tenant", "acme", "-n", "2"}, nil, write, &complaint)
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

// More new entries than a page holds are all printed; a damaged one is told once.
func TestTailLooks(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, makeJournal(t.Context(), []string{dir + "/crm.db", dir + "/journal.key", "1100"}))
	require.NoError(t, execute(t.Context(), []string{dir + "/crm.db", `UPDATE crmguard_audit_entries SET subject = 'boris' WHERE seq = 7`}))
	store, done, err := openJournal(t.Context(), dir+"/crm.db", "")
	require.NoError(t, err)
	defer done() //nolint:errcheck // a test
	var complaint bytes.Buffer
	var got []int64
	tail := tail{call: &call{Context: t.Context(), err: &complaint}, store: store, q: audit.Query{Tenant: "acme"}, last: -1,
		print: func(e *audit.Entry) error { got = append(got, e.Seq); return nil }}
	require.NoError(t, tail.look(3))
	require.Equal(t, []int64{1097, 1098, 1099}, got)
	got, tail.last = nil, -1
	require.NoError(t, tail.look(-1))
	require.Len(t, got, 1100, "it is of anna, whatever the column says")
	for i, seq := range got {
		require.Equal(t, int64(i), seq)
	}
	got, tail.last, tail.q.Subject = nil, -1, "boris"
	for range 2 {
		require.NoError(t, tail.look(-1))
		tail.last = -1
	}
	require.Empty(t, got)
	require.Equal(t, tampered, tail.code)
	require.Equal(t, 1, bytes.Count(complaint.Bytes(), []byte("entry 7")), complaint.String())
}

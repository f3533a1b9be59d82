package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/uptime"
)

// hurry lets the clock of this process run fifty times as fast.
func hurry(t *testing.T) {
	t.Helper()
	began := time.Now()
	t.Cleanup(uptime.Move(func() time.Duration { return time.Hour + 50*time.Since(began) }))
}

// A CRM opens, seals and searches on the same key store, another process's, through a
// turn and an erasure; nothing fails, and the erased client closes there too.
func TestTurningAndErasingWhileTheCRMRuns(t *testing.T) {
	eachName(t, func(t *testing.T, store string) {
		hurry(t)
		dir := t.TempDir()
		database, kek := dir+"/crm-data.db", dir+"/kek.json"
		require.NoError(t, makeClients(t.Context(), []string{database, store, kek, "acme"}))
		c, err := openCRM(t.Context(), database, store, kek)
		require.NoError(t, err)
		defer c.close() //nolint:errcheck // a test
		ctx := crmguard.System(t.Context(), "acme", "test")
		stop, stopped := make(chan struct{}), make(chan error, 1)
		var rounds atomic.Int64
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				at := crmguard.Place{Tenant: "acme", Client: "c2", Kind: "contacts", Field: "phone", Record: "c2"}
				sealed, err := c.keys.Seal(ctx, at, []byte("x"))
				if err == nil {
					_, err = c.keys.Open(ctx, at, sealed)
				}
				if err != nil {
					stopped <- err
					return
				}
				rounds.Add(1)
			}
		}()
		keys := []string{"-store", store, "-kek", kek}
		code, out, complaint := invoke(t, append([]string{"keys", "turn"}, keys...)...)
		require.Equal(t, good, code, out+complaint)
		code, out, complaint = invoke(t, append([]string{"keys", "erase", "-db", database, "-tenant", "acme", "-client", "c1", "-yes"}, keys...)...)
		require.Equal(t, good, code, out+complaint)
		require.Eventually(t, func() bool {
			_, err := c.keys.Seal(ctx, crmguard.Place{Tenant: "acme", Client: "c1", Kind: "contacts", Field: "phone", Record: "c1"}, []byte("x"))
			return err != nil
		}, time.Minute, 10*time.Millisecond)
		close(stop)
		require.NoError(t, <-stopped)
		require.Positive(t, rounds.Load())
	})
}

// interrupting cancels when the output has a text.
type interrupting struct {
	bytes.Buffer
	text string
	stop context.CancelFunc
}

func (i *interrupting) Write(p []byte) (int, error) {
	if strings.Contains(string(p), i.text) {
		i.stop()
	}
	return i.Buffer.Write(p)
}

// Wherever a turn is cut off, all opens, and the next one does it all.
func TestATurnThatIsCutOff(t *testing.T) {
	hurry(t)
	for _, at := range []string{"looking", "wrapping", "waiting", "destroying"} {
		dir := t.TempDir()
		args := []string{"keys", "turn", "-store", dir + "/keys.db", "-kek", dir + "/kek.json"}
		fixtures := []string{dir + "/crm-data.db", dir + "/keys.db", dir + "/kek.json", "acme"}
		require.NoError(t, makeClients(t.Context(), fixtures))
		ctx, stop := context.WithCancel(t.Context())
		complaint := &interrupting{text: at, stop: stop}
		var out bytes.Buffer
		require.Equal(t, unable, run(ctx, args, nil, &out, complaint), at)
		require.Contains(t, complaint.String(), "Call it again to go on", at)
		require.Empty(t, out.String())
		requireOpen(t, fixtures)
		code, said, complained := invoke(t, args...)
		require.Equal(t, good, code, at+complained)
		require.Contains(t, said, "turned: 1 keyset")
		requireOpen(t, fixtures)
	}
}

func requireOpen(t *testing.T, fixtures []string) {
	t.Helper()
	c, err := openCRM(t.Context(), fixtures[0], fixtures[1], fixtures[2])
	require.NoError(t, err)
	defer c.close() //nolint:errcheck // a test
	row := &clientRow{ID: "c1"}
	require.NoError(t, c.db.QueryRow(`SELECT phone_sealed FROM contacts WHERE id = 'c1'`).Scan(&row.PhoneSealed))
	require.NoError(t, c.table.Open(crmguard.System(t.Context(), "acme", "test"), "acme", row))
	require.Equal(t, "+7 912 345-67-89", row.Phone)
}

// Finishing that is cut off stays ordered.
func TestFinishingThatIsCutOff(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, makeClients(t.Context(), []string{dir + "/crm-data.db", dir + "/keys.db", dir + "/kek.json", "acme"}))
	flags := []string{"-store", dir + "/keys.db", "-kek", dir + "/kek.json", "-db", dir + "/crm-data.db"}
	code, _, complaint := invoke(t, append([]string{"keys", "erase", "-tenant", "acme", "-client", "c1", "-yes"}, flags...)...)
	require.Equal(t, good, code, complaint)
	ctx, stop := context.WithCancel(t.Context())
	shown := &interrupting{text: "to destroy", stop: stop}
	var out bytes.Buffer
	require.Equal(t, unable, run(ctx, append([]string{"keys", "erase", "-finish"}, flags...), nil, &out, shown))
	require.Contains(t, shown.String(), "not all could be destroyed")
	require.Empty(t, out.String())
	_, said, _ := invoke(t, "keys", "list", "-store", dir+"/keys.db")
	require.Contains(t, said, "1 closing, 0 destroyed")
}

func TestConfirm(t *testing.T) {
	for typed, ok := range map[string]bool{"c1\n": true, "c1\r\n": true, "c1": true, "y\n": false, "yes\n": false, "": false, "\n": false, "c1 \n": false, "c10\n": false} {
		var complaint bytes.Buffer
		c := &call{Context: t.Context(), in: strings.NewReader(typed), err: &complaint}
		require.Equal(t, ok, c.confirm("acme", "c1") == nil, "%q", typed)
		require.Contains(t, complaint.String(), "Erase client c1 of tenant acme for ever?")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	in, out := io.Pipe() // nobody types
	defer out.Close()    //nolint:errcheck // a test
	require.ErrorIs(t, (&call{Context: ctx, in: in, err: io.Discard}).confirm("acme", "c1"), errUnconfirmed)
}

// A terminal at which nobody sits confirms nothing.
func TestNobodyConfirms(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, makeClients(t.Context(), []string{dir + "/crm-data.db", dir + "/keys.db", dir + "/kek.json", "acme"}))
	nobody, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer nobody.Close() //nolint:errcheck // a test
	var out, complaint bytes.Buffer
	code := run(t.Context(), []string{"keys", "erase", "-tenant", "acme", "-client", "c1", "-no-index", "-store", dir + "/keys.db", "-kek", dir + "/kek.json"}, nobody, &out, &complaint)
	require.Equal(t, bad, code, complaint.String())
	require.Contains(t, complaint.String(), "not confirmed: nothing was changed")
	requireOpen(t, []string{dir + "/crm-data.db", dir + "/keys.db", dir + "/kek.json"})
}

// Two questions read a line each.
func TestReadLine(t *testing.T) {
	c := &call{Context: t.Context(), in: strings.NewReader("one\ntwo")}
	for _, want := range []string{"one", "two"} {
		line, err := c.readLine()
		require.NoError(t, err)
		require.Equal(t, want, string(line))
	}
	_, err := c.readLine()
	require.ErrorIs(t, err, io.EOF)
	_, err = readAll(strings.NewReader(strings.Repeat("x", maxPassphrase+1)))
	require.ErrorContains(t, err, "is that the right file")
}

// A copy of a key store that has no keys yet is none: the first key would be of a KEK that
// may not be the CRM's.
func TestAnEmptyKeyStoreStaysEmpty(t *testing.T) {
	dir := t.TempDir()
	c, err := openCRM(t.Context(), dir+"/crm-data.db", dir+"/keys.db", dir+"/kek.json")
	require.NoError(t, err)
	require.NoError(t, c.close())
	code, _, complaint := invoke(t, "keys", "turn", "-store", dir+"/keys.db", "-kek", dir+"/kek.json")
	require.Equal(t, unable, code)
	require.Contains(t, complaint, "there are no keys in the key store")
	code, said, _ := invoke(t, "keys", "list", "-store", dir+"/keys.db")
	require.Equal(t, good, code)
	require.Contains(t, said, "there are no keys yet")
}

func TestTeller(t *testing.T) {
	var out bytes.Buffer
	shown := &teller{out: &out, terminal: true}
	shown.tell("wrapping", "1 of 9")
	shown.tell("wrapping", "2 of 9")
	shown.tell("waiting", "")
	shown.end()
	require.Equal(t, "\r\x1b[Kwrapping: 1 of 9\r\x1b[Kwaiting\r\x1b[K", out.String())
	out.Reset()
	shown = &teller{out: &out}
	shown.tell("wrapping", "1 of 9")
	shown.tell("wrapping", "2 of 9")
	shown.tell("waiting", "")
	shown.end()
	require.Equal(t, "wrapping: 1 of 9\nwaiting\n", out.String())
}

func TestWhatIsDue(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, tt := range map[string]struct {
		report keysReport
		want   string
	}{
		"nothing":     {keysReport{KEK: kekState{Generation: 1, Since: ago(days(364))}}, ""},
		"a year":      {keysReport{KEK: kekState{Generation: 1, Since: ago(days(366))}}, "more than a year old: call crmguard keys turn"},
		"a turn":      {keysReport{KEK: kekState{TurningSince: ago(time.Minute)}}, ""},
		"cut off":     {keysReport{KEK: kekState{TurningSince: ago(time.Hour)}}, "has not ended"},
		"closing":     {keysReport{Erasures: erasureState{Closing: 1, OldestClosing: ago(encrypt.ClosingTime)}}, ""},
		"not done":    {keysReport{Erasures: erasureState{Closing: 1, OldestClosing: ago(time.Hour)}}, "crmguard keys erase -finish"},
		"young index": {keysReport{Keys: []keyCount{{Purpose: "index", Oldest: ago(days(89))}}}, ""},
		"old index":   {keysReport{Keys: []keyCount{{Purpose: "index", Oldest: ago(days(91))}}}, "older than 90 days"},
		"old client":  {keysReport{Keys: []keyCount{{Purpose: "client", Oldest: ago(days(900))}}}, ""},
	} {
		due := tt.report.due(now, days(90))
		if tt.want == "" {
			require.Empty(t, due, name)
			continue
		}
		require.Len(t, due, 1, name)
		require.Contains(t, due[0], tt.want, name)
	}
}

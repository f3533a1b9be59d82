package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
)

// spoolFiles are the contents of the files of a spool, without its lock.
func spoolFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
again:
	for {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		all := make(map[string][]byte)
		for _, e := range entries {
			if e.Name() == "lock" {
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if errors.Is(err, fs.ErrNotExist) { // removed or renamed since: a spool works meanwhile
				continue again
			}
			require.NoError(t, err)
			all[e.Name()] = content
		}
		return all
	}
}

// spooledRig has n entries in its spool and is closed; its log goes on.
func spooledRig(t *testing.T, n int) *rig {
	t.Helper()
	r := newRig(t, audit.FailoverOptions{})
	r.store.set(errDown, nil)
	for i := range n {
		require.NoError(t, r.Record(t.Context(), private(act(crmguard.SignIn, fmt.Sprint("spooled-", i)))))
	}
	require.NoError(t, r.Failover.Close())
	r.store.set(nil, nil)
	return r
}

// replayed opens the spool of a rig and returns what comes into the journal.
func (r *rig) replayed(t *testing.T) []string {
	t.Helper()
	r.open(t, audit.FailoverOptions{})
	r.until(t, func() bool { return r.Status().Spooled == 0 })
	return r.ids(t)
}

func expected(n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint("spooled-", i))
	}
	return ids
}

// The spool outlives the process, and is empty when the journal has all of it.
func TestSpoolOutlivesTheProcess(t *testing.T) {
	r := spooledRig(t, 100)
	require.Len(t, spoolFiles(t, r.dir), 1)
	other, err := audit.NewFailover(r.log, filepath.Dir(r.dir), nil)
	require.NoError(t, err, "another folder")
	require.NoError(t, other.Close())
	require.Equal(t, expected(100), r.replayed(t))
	r.until(t, func() bool { return len(spoolFiles(t, r.dir)) == 0 })
	_, err = audit.NewFailover(r.log, r.dir, nil)
	require.ErrorContains(t, err, "in use")
	_, err = audit.NewFailover(nil, r.dir, nil)
	require.Error(t, err)
	_, err = audit.NewFailover(r.log, "", nil)
	require.Error(t, err)
}

// A planted fault: frames that change places on the disk come in another order, and
// the test above would see it.
func TestSpoolOrderIsChecked(t *testing.T) {
	r := spooledRig(t, 2)
	for name, content := range spoolFiles(t, r.dir) {
		at := audit.SpoolOffsets(content)
		require.Len(t, at, 3)
		swapped := slices.Concat(content[:at[0]], content[at[1]:at[2]], content[at[0]:at[1]])
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, name), swapped, 0o600))
	}
	require.Equal(t, []string{"spooled-1", "spooled-0"}, r.replayed(t))
}

// Whoever reads the disk learns nothing but the tenant.
func TestSpoolIsSealed(t *testing.T) {
	told := func(r *rig) (found []string) {
		for _, content := range spoolFiles(t, r.dir) {
			for _, word := range []string{"anna", "client-1", "49301234567", "sign-in", "contacts", "spooled-0"} {
				if bytes.Contains(content, []byte(word)) {
					found = append(found, word)
				}
			}
		}
		return found
	}
	require.Empty(t, told(spooledRig(t, 1)))

	r := newRig(t, audit.FailoverOptions{}) // a planted fault: keys that seal nothing
	audit.SetKeys(r.log, open1{})
	r.store.set(errDown, nil)
	require.NoError(t, r.Record(t.Context(), private(act(crmguard.SignIn, "spooled-0"))))
	require.NotEmpty(t, told(r))
	r.store.set(nil, nil)
}

// open1 seals nothing.
type open1 struct{}

func (open1) Seal(_ context.Context, _ crmguard.Place, b []byte) ([]byte, error) {
	return slices.Clone(b), nil
}

func (open1) Open(_ context.Context, _ crmguard.Place, b []byte) ([]byte, error) {
	return slices.Clone(b), nil
}

// Who can write the disk and has no keys plants nothing: neither what they made, nor
// what was sealed for another tenant, log or place. It is set aside, and told of.
func TestPlantedInSpool(t *testing.T) {
	other := spooledRig(t, 1) // of another log, under the same keys
	var foreign []byte
	for _, content := range spoolFiles(t, other.dir) {
		foreign = audit.SpoolSealed(content)[0]
	}
	inbox, err := journaltest.NewSealer().Seal(t.Context(), crmguard.Place{Tenant: "acme", Kind: "audit-inbox", Record: "x", Field: "done"}, []byte("body"))
	require.NoError(t, err)
	for name, frame := range map[string][]byte{
		"made up":            audit.SpoolFrame("acme", []byte("nothing that opens")),
		"of another log":     audit.SpoolFrame("acme", foreign),
		"for another tenant": audit.SpoolFrame("emca", foreign),
		"of the inbox":       audit.SpoolFrame("acme", inbox),
	} {
		t.Run(name, func(t *testing.T) {
			r := spooledRig(t, 2)
			for file, content := range spoolFiles(t, r.dir) {
				at := audit.SpoolOffsets(content)
				planted := slices.Concat(content[:at[1]], frame, content[at[1]:])
				require.NoError(t, os.WriteFile(filepath.Join(r.dir, file), planted, 0o600))
			}
			require.Equal(t, expected(2), r.replayed(t))
			require.Equal(t, 1, r.Status().Left)
			require.False(t, r.Status().OK())
			require.Contains(t, r.logged.String(), "set aside")
			r.until(t, func() bool { return strings.HasSuffix(only(spoolFiles(t, r.dir)), ".left") })
			require.NoError(t, r.Failover.Close())
			r.open(t, audit.FailoverOptions{})
			require.Equal(t, 1, r.Status().Left, "it is told of until somebody looks")
		})
	}
}

// interrupted are keys that open nothing of the spool as long as there are errors.
type interrupted struct {
	crmguard.Sealer
	errs []error
}

func (i *interrupted) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	if at.Kind == "audit-spool" && at.Field != "probe" && len(i.errs) > 0 {
		err := i.errs[0]
		i.errs = i.errs[1:]
		return nil, err
	}
	return i.Sealer.Open(ctx, at, sealed)
}

// Keys that fail, work when it is asked whether they do, and fail again set nothing aside.
func TestKeysFailWhileTheSpoolIsReplayed(t *testing.T) {
	r := spooledRig(t, 2)
	audit.SetKeys(r.log, &interrupted{r.keys, []error{errors.New("the connection was lost"), crmguard.ErrUnavailable}})
	require.Equal(t, expected(2), r.replayed(t))
	require.Zero(t, r.Status().Left)
}

func only(files map[string][]byte) string {
	for name := range files {
		return name
	}
	return ""
}

// A planted fault: with keys that do not bind anything, what was planted is recorded.
func TestPlantedInSpoolIsChecked(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	audit.SetKeys(r.log, open1{})
	require.NoError(t, r.Failover.Close())
	content := audit.SpoolFile("acme", audit.SpoolBody(r.log, private(act(crmguard.SignIn, "spooled-0"))))
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "0000000000.spool"), content, 0o600))
	require.Equal(t, expected(1), r.replayed(t))
}

// Keys that fail hold entries back; they are not taken for planted ones.
func TestSpoolWaitsForKeys(t *testing.T) {
	r := spooledRig(t, 3)
	r.keys.set(errors.New("the KMS is down"), nil)
	r.open(t, audit.FailoverOptions{})
	require.NoError(t, r.Record(t.Context(), act(crmguard.Export, "e")), "the log works")
	require.NoError(t, r.Record(t.Context(), act(crmguard.Revoke, "r")), "rather out of order than not at all")
	s := r.Status()
	require.Equal(t, 3, s.Spooled)
	require.Zero(t, s.Left)
	r.keys.set(nil, nil)
	r.until(t, func() bool { return r.Status().OK() })
	require.Equal(t, []string{"e", "r", "spooled-0", "spooled-1", "spooled-2"}, r.ids(t))
}

// Whatever byte a crash left the file at, what was acknowledged before is replayed,
// and nothing else.
func TestTornSpool(t *testing.T) {
	r := spooledRig(t, 2)
	name := only(spoolFiles(t, r.dir))
	content := spoolFiles(t, r.dir)[name]
	at := audit.SpoolOffsets(content)
	for cut := at[0]; cut < len(content); cut += 7 {
		for _, zeros := range []int{0, 100} {
			torn := append(slices.Clone(content[:cut]), make([]byte, zeros)...)
			frames, bad := audit.ScanSpool(torn)
			whole := 0
			for whole+1 < len(at) && at[whole+1] <= cut {
				whole++
			}
			require.Equal(t, whole, frames, "cut at %d", cut)
			require.Zero(t, bad, "cut at %d", cut)
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, name), content[:len(content)-1], 0o600))
	require.Equal(t, expected(1), r.replayed(t))
	require.True(t, r.Status().OK())
}

// A byte changed on the disk costs the entry that it is in, and is told of, in the last
// batch too.
func TestDamagedSpool(t *testing.T) {
	for damaged, left := range [][]string{{"spooled-1", "spooled-2"}, {"spooled-0", "spooled-2"}, {"spooled-0", "spooled-1"}} {
		for _, offset := range []int{1, 5, 20} { // in the kind, the length, the payload
			r := spooledRig(t, 3)
			name := only(spoolFiles(t, r.dir))
			content := spoolFiles(t, r.dir)[name]
			at := audit.SpoolOffsets(content)
			content[at[damaged]+offset] ^= 1
			require.NoError(t, os.WriteFile(filepath.Join(r.dir, name), content, 0o600))
			require.Equal(t, left, r.replayed(t))
			require.Equal(t, 1, r.Status().Left)
			r.until(t, func() bool { return strings.HasSuffix(only(spoolFiles(t, r.dir)), ".left") })
		}
	}
}

// A checksum that happens to end with a zero is no sign of a crash.
func TestDamagedSpoolThatEndsWithZero(t *testing.T) {
	for i := 0; ; i++ {
		content := audit.SpoolFile("acme", fmt.Appendf(nil, "sealed %d", i))
		if content[len(content)-1] != 0 {
			continue
		}
		frames, bad := audit.ScanSpool(content)
		require.Equal(t, 1, frames)
		require.Zero(t, bad)
		content[len(content)-8] ^= 1
		frames, bad = audit.ScanSpool(content)
		require.Zero(t, frames)
		require.Equal(t, 1, bad)
		return
	}
}

// What the disk does not give back is tried again, and then set aside: it holds
// nobody up for ever.
func TestUnreadableSpool(t *testing.T) {
	for _, lasting := range []bool{false, true} {
		r := newRig(t, audit.FailoverOptions{})
		goOn := r.store.hang(t)
		require.NoError(t, r.Record(t.Context(), act(crmguard.SignIn, "spooled-0")))
		path := filepath.Join(r.dir, only(spoolFiles(t, r.dir)))
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, 40))
		if !lasting {
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
		if lasting {
			r.until(t, func() bool { return r.Status().Spooled == 0 && r.Status().Left == 1 })
			continue
		}
		goOn()
		r.until(t, func() bool { return r.Status().OK() })
		require.Equal(t, expected(1), r.ids(t))
	}
}

// A full disk refuses what it cannot take, and takes it again when it is cleared.
func TestSpoolOnFullDisk(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	r.store.set(errDown, nil)
	require.NoError(t, r.Record(t.Context(), act(crmguard.SignIn, "spooled-0")))
	full := error(syscall.ENOSPC)
	r.disk.Store(&full)
	require.ErrorIs(t, r.Record(t.Context(), act(crmguard.SignIn, "lost")), syscall.ENOSPC)
	r.disk.Store(nil)
	require.NoError(t, r.Record(t.Context(), act(crmguard.SignIn, "spooled-1")))
	require.NoError(t, r.Failover.Close())
	r.store.set(nil, nil)
	require.Equal(t, expected(2), r.replayed(t))
}

// After a flush that failed nothing is known of the file: the spool takes no more,
// and what it had taken before is recorded.
func TestFailedFlushPoisonsSpool(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	r.store.set(errDown, nil)
	require.NoError(t, r.Record(t.Context(), act(crmguard.SignIn, "spooled-0")))
	broken := error(syscall.EIO)
	r.flush.Store(&broken)
	require.ErrorIs(t, r.Record(t.Context(), act(crmguard.SignIn, "x")), audit.ErrPoisoned)
	r.flush.Store(nil)
	require.ErrorIs(t, r.Record(t.Context(), act(crmguard.SignIn, "x")), audit.ErrPoisoned)
	require.ErrorIs(t, r.Status().SpoolErr, audit.ErrPoisoned)
	r.store.set(nil, nil)
	r.until(t, func() bool { return r.Status().Spooled == 0 })
	require.Equal(t, expected(1), r.ids(t))
	require.NoError(t, r.Record(t.Context(), act(crmguard.SignIn, "y")), "the log works")
}

// A file that is removed, or written to by somebody else, takes no more.
func TestSpoolTouchedWhileInUse(t *testing.T) {
	for name, touch := range map[string]func(path string) error{
		"removed": os.Remove, "grown": grow, "replaced": replace,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, audit.FailoverOptions{})
			r.store.set(errDown, nil)
			require.NoError(t, r.Record(t.Context(), act(crmguard.SignIn, "spooled-0")))
			require.NoError(t, touch(filepath.Join(r.dir, only(spoolFiles(t, r.dir)))))
			require.ErrorIs(t, r.Record(t.Context(), act(crmguard.SignIn, "x")), audit.ErrPoisoned)
			r.store.set(nil, nil)
			r.until(t, func() bool { return r.Status().Spooled == 0 })
			require.Equal(t, expected(1), r.ids(t), "the entry is still in the open file")
		})
	}
}

// A disk that hangs holds nobody for longer than the deadline, nor Close.
func TestSpoolOnHungDisk(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	require.NoError(t, r.Failover.Close())
	r.store.set(errDown, nil)
	gate := make(chan struct{})
	f, err := audit.NewFailoverWith(r.log, r.dir, nil, audit.Faults{Limit: 10 * time.Millisecond, Sync: func(f *os.File) error {
		<-gate
		return f.Sync()
	}})
	require.NoError(t, err)
	for range 10 {
		require.ErrorIs(t, f.Record(t.Context(), act(crmguard.SignIn, "late")), context.DeadlineExceeded)
		require.NoError(t, f.Record(t.Context(), act(crmguard.View, "v")))
	}
	require.Equal(t, 10, f.Status().Dropped)
	require.ErrorContains(t, f.Close(), "hangs")
	close(gate)
	require.Eventually(t, func() bool { return audit.SpoolEnded(f) }, 20*time.Second, time.Millisecond)
}

// The spool has a limit; beyond it its events block.
func TestSpoolLimit(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{SpoolLimit: 10_000})
	r.store.set(errDown, nil)
	taken := 0
	var err error
	for ; taken < 1000 && err == nil; taken++ {
		err = r.Record(t.Context(), act(crmguard.SignIn, fmt.Sprint("spooled-", taken)))
	}
	require.ErrorContains(t, err, "full")
	require.Greater(t, taken, 10)
	require.LessOrEqual(t, r.Status().SpoolBytes, int64(10_000-10_000/8))
	require.NoError(t, r.Record(t.Context(), act(crmguard.Revoke, "dismissed")), "there is room for what ends access")
	err = nil
	for n := 0; n < 1000 && err == nil; n++ {
		err = r.Record(t.Context(), act(crmguard.Revoke, fmt.Sprint("out-", n)))
	}
	require.ErrorContains(t, err, "full")
	require.LessOrEqual(t, r.Status().SpoolBytes, int64(10_000))
	require.NoError(t, r.Record(t.Context(), act(crmguard.View, "v")), "counted")
	r.store.set(nil, nil)
	r.until(t, func() bool { return r.Status().OK() })
	require.Equal(t, expected(taken-1), r.ids(t)[:taken-1])
}

// Counts outlive the process when it is closed, although the log is down all along.
func TestCountsOutliveTheProcess(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	r.store.set(errDown, nil)
	for range 300 {
		require.NoError(t, r.Record(t.Context(), act(crmguard.List, "")))
	}
	require.NoError(t, r.Failover.Close())
	r.store.set(nil, nil)
	r.replayed(t)
	lost := 0
	for _, e := range r.events(t) {
		g, ok := audit.GapOf(e)
		require.True(t, ok)
		lost += g.Count
	}
	require.Equal(t, 300, lost)
	_, ok := audit.GapOf(act(crmguard.View, "v"))
	require.False(t, ok)
}

func spoolForever(ctx context.Context, p *processtest.Process) error {
	signer, verifier, err := audit.OpenSigner(filepath.Join(p.Args[0], "key"), "crm.example/journal", true)
	if err != nil {
		return err
	}
	store, err := audit.OpenFile(filepath.Join(p.Args[0], "journal"))
	if err != nil {
		return err
	}
	down := &outage{Store: store}
	log, err := audit.New(ctx, down, journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: 3 * time.Millisecond})
	if err != nil {
		return err
	}
	policy := func(crmguard.Event) audit.Policy { return audit.Spool }
	f, err := audit.NewFailover(log, filepath.Join(p.Args[0], "spool"), &audit.FailoverOptions{Policy: policy})
	if err != nil {
		return err
	}
	go func() { // now it works, now it does not
		for broken := true; ; broken = !broken {
			down.set(map[bool]error{true: errDown}[broken], nil)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return journaltest.RecordForever(ctx, f)
}

// A process is killed again and again while its log comes and goes: what it was told
// is in the journal afterwards, once, and each actor's in order.
func TestKillSpool(t *testing.T) {
	dir := t.TempDir()
	acknowledged := processtest.Kill(t, 40*time.Millisecond, "spool forever", dir)
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", false)
	require.NoError(t, err)
	store := openFile(t, filepath.Join(dir, "journal"))
	log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	f, err := audit.NewFailover(log, filepath.Join(dir, "spool"), nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Status().Spooled == 0 }, time.Minute, time.Millisecond)
	require.Zero(t, f.Status().Left)
	require.NoError(t, f.Close())
	require.NoError(t, log.Close())
	requireEachOnce(t, store, verifier, acknowledged)
}

// FuzzSpool reads files that somebody else wrote.
func FuzzSpool(f *testing.F) {
	f.Add([]byte{})
	f.Add(audit.SpoolFile("acme", []byte("sealed")))
	f.Add(append(audit.SpoolFile("acme", []byte("sealed")), audit.SpoolFrame("emca", []byte("more"))...))
	f.Fuzz(func(t *testing.T, content []byte) {
		frames, _ := audit.ScanSpool(content)
		require.LessOrEqual(t, frames*17, len(content))
	})
}

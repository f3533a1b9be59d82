package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// auditClaims compare the journal with the same work bare: bytes written and flushed,
// bytes hashed. What a proof and a long verification take is counted.
func auditClaims() []claim {
	return []claim{
		{name: "audit.file", unit: "/s", direction: atLeast, limit: 0.7, open: openAuditFile},
		{name: "audit.verify", unit: "MB/s", direction: atLeast, limit: 0.35, open: openAuditVerify},
		{name: "audit.proof", unit: " hashes", direction: atMost, limit: 40, open: openAuditProof},
		{name: "audit.memory", unit: "MiB", direction: atMost, limit: 256, open: openAuditMemory},
	}
}

// How many entries there are, and who records them.
var (
	verifiedEntries = 40_000
	provenAmong     = 1_000_000
	rememberedNot   = 10_000_000
)

const fileWriters = 64

// auditTime is how long one round of writing takes.
const auditTime = 300 * time.Millisecond

// auditEvent makes records of 300 bytes.
func auditEvent() crmguard.Event {
	return crmguard.Event{
		Subject: crmguard.Subject{
			Tenant: "default", ID: "employee-7", Kind: crmguard.KindEmployee, Session: "s-0195b1c2", Device: "d-41",
			Addr: netip.MustParseAddr("192.0.2.7"), Assurance: crmguard.AssuranceSecondFactor,
			AuthenticatedAt: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), Roles: []string{"seller"}, Units: []string{"sales"},
		},
		Action:   crmguard.View,
		Resource: crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "104729", Owner: "employee-7", Unit: "sales"},
		Outcome:  crmguard.Done,
		Fields:   []string{"phone", "email"},
		Count:    1,
		Request:  "0195b1c2-7d3e-7f1a",
		Policy:   "2026-11-21/7",
	}
}

// auditor is a journal with all that it needs.
type auditor struct {
	*audit.Log
	signer   auditSigner
	verifier auditVerifier
	pair     *pair
}

// auditSigner and auditVerifier are those of golang.org/x/mod/sumdb/note.
type auditSigner interface {
	Name() string
	KeyHash() uint32
	Sign(msg []byte) ([]byte, error)
}

type auditVerifier interface {
	Name() string
	KeyHash() uint32
	Verify(msg, sig []byte) bool
}

func newAuditor(ctx context.Context, store audit.Store) (*auditor, error) {
	p, err := newPair(ctx)
	if err != nil {
		return nil, err
	}
	signer, verifier, err := audit.OpenSigner(filepath.Join(p.dir, "journal.key"), "crm.example/journal", true)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	log, err := audit.New(ctx, store, p.ours, signer, verifier, &audit.Options{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return &auditor{log, signer, verifier, p}, nil
}

func (a *auditor) close() error { return errors.Join(a.Close(), a.pair.close()) }

// rate measures how often a second n clients do something, for as long as a round takes.
func rate(n int, round time.Duration, do func(ctx context.Context) error) measurement {
	return func(ctx context.Context) (float64, error) {
		done, failed := make([]int, n), make([]error, n)
		var wg sync.WaitGroup
		start := time.Now()
		for i := range n {
			wg.Go(func() {
				for time.Since(start) < round && failed[i] == nil {
					failed[i] = do(ctx)
					done[i]++
				}
			})
		}
		wg.Wait()
		took := time.Since(start)
		total := 0
		for _, n := range done {
			total += n
		}
		return float64(total) / took.Seconds(), errors.Join(failed...)
	}
}

// batches notes how many entries, and bytes of their records, were appended at once.
type batches struct {
	audit.Store
	mu   sync.Mutex
	list []batchSize
}

type batchSize struct{ entries, bytes int }

func (b *batches) Append(ctx context.Context, batch audit.Batch) error {
	if n := len(batch.Rows); n > 0 {
		size := batchSize{entries: n}
		for i := range batch.Rows {
			size.bytes += len(batch.Rows[i].Record)
		}
		b.mu.Lock()
		b.list = append(b.list, size)
		b.mu.Unlock()
	}
	return b.Store.Append(ctx, batch)
}

// openAuditFile records from 64 goroutines into files; the peer writes as many bytes
// of records in the same batches to one file, flushes each, and does nothing else.
func openAuditFile(ctx context.Context, _ *servers) (trial, error) {
	dir, err := os.MkdirTemp("", "crmguard-claims-")
	if err != nil {
		return trial{}, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	store, err := audit.OpenFile(filepath.Join(dir, "journal"))
	if err != nil {
		return trial{}, errors.Join(err, remove())
	}
	sizes := &batches{Store: store}
	a, err := newAuditor(ctx, sizes)
	if err != nil {
		return trial{}, errors.Join(err, store.Close(), remove())
	}
	bare, err := os.Create(filepath.Join(dir, "bare")) // #nosec G304 -- in our own temporary folder
	if err != nil {
		return trial{}, errors.Join(err, a.close(), store.Close(), remove())
	}
	e := auditEvent()
	record := rate(fileWriters, auditTime, func(ctx context.Context) error { return a.Record(ctx, e) })
	return trial{
		ours: func(ctx context.Context) (float64, error) {
			sizes.list = sizes.list[:0]
			return record(ctx)
		},
		peer:  func(context.Context) (float64, error) { return writeBare(bare, sizes.list) },
		close: func() error { return errors.Join(a.close(), store.Close(), bare.Close(), remove()) },
	}, nil
}

// writeBare returns entries a second.
func writeBare(f *os.File, list []batchSize) (float64, error) {
	if len(list) == 0 {
		return 0, errors.New("no batches")
	}
	data := make([]byte, 1<<20)
	entries := 0
	start := time.Now()
	for _, b := range list {
		if _, err := f.Write(data[:b.bytes]); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		entries += b.entries
	}
	return float64(entries) / time.Since(start).Seconds(), nil
}

// openAuditVerify verifies a log in memory on one core; the peer hashes the same
// records there.
func openAuditVerify(ctx context.Context, _ *servers) (trial, error) {
	store := audit.NewMemory()
	a, err := newAuditor(ctx, store)
	if err != nil {
		return trial{}, err
	}
	e := auditEvent()
	var wg sync.WaitGroup
	failed := make([]error, fileWriters)
	for i := range fileWriters {
		wg.Go(func() {
			for range verifiedEntries / fileWriters {
				failed[i] = errors.Join(failed[i], a.Record(ctx, e))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(append(failed, a.close())...); err != nil {
		return trial{}, err
	}
	rows, err := store.Read(ctx, 0, verifiedEntries)
	if err != nil {
		return trial{}, err
	}
	bytes := 0
	for i := range rows {
		bytes += len(rows[i].Record)
	}
	var sum [sha256.Size]byte
	return trial{
		ours: oneCore(bytes, func() error { return a.verify(ctx, store) }),
		peer: oneCore(bytes, func() error {
			for i := range rows {
				sum = sha256.Sum256(rows[i].Record)
			}
			runtime.KeepAlive(sum)
			return nil
		}),
	}, nil
}

func (a *auditor) verify(ctx context.Context, store audit.Store) error {
	return verified(audit.VerifyStore(ctx, store, a.verifier, nil))
}

func verified(r audit.Report, err error) error {
	if err == nil && !r.OK() {
		err = fmt.Errorf("%s: %s", r.Verdict, r.Detail)
	}
	return err
}

// oneCore measures MB a second that a core works, while the program has one: the fastest of
// the repetitions of a round, because others on the machine take caches, and never give any.
func oneCore(bytes int, do func() error) measurement {
	return func(context.Context) (float64, error) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		runtime.GC()
		fastest := time.Duration(0)
		for began := time.Now(); time.Since(began) < 2*roundTime; {
			before, err := cpuTime()
			if err != nil {
				return 0, err
			}
			if err := do(); err != nil {
				return 0, err
			}
			after, err := cpuTime()
			if err != nil {
				return 0, err
			}
			if took := after - before; fastest == 0 || took < fastest {
				fastest = took
			}
		}
		return float64(bytes) / 1e6 / fastest.Seconds(), nil
	}
}

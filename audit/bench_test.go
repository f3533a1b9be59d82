package audit_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// benchEvent makes records of about 300 bytes.
func benchEvent() crmguard.Event {
	e := journaltest.Event(1)
	e.ID, e.Private = "", nil
	return e
}

// writers shares b.N records among goroutines.
func writers(b *testing.B, n int, record func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := record(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkFileRecord64Writers(b *testing.B) {
	s, err := audit.OpenFile(b.TempDir())
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	batches := &counting{Store: s}
	signer, verifier := journaltest.Signer(b)
	log, err := audit.New(b.Context(), batches, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(b, err)
	e := benchEvent()
	writers(b, 64, func() error { return log.Record(b.Context(), e) })
	b.ReportMetric(float64(b.N)/float64(batches.n.Load()), "entries/batch")
	require.NoError(b, log.Close())
}

// The peer of the benchmark above: nothing but writing and flushing as many bytes
// in batches of the same size.
func BenchmarkBareWriteAndFlush(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	require.NoError(b, err)
	defer func() { require.NoError(b, f.Close()) }()
	batch := make([]byte, 64*400)
	for b.Loop() {
		if _, err := f.Write(batch); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(64*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

type counting struct {
	audit.Store
	n atomic.Int64
}

func (c *counting) Append(ctx context.Context, b audit.Batch) error {
	c.n.Add(1)
	return c.Store.Append(ctx, b)
}

func BenchmarkVerify(b *testing.B) {
	s := audit.NewMemory()
	signer, verifier := journaltest.Signer(b)
	log, err := audit.New(b.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(b, err)
	e := benchEvent()
	size := int64(0)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 300 {
				if err := log.Record(b.Context(), e); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(b, log.Close())
	rows, err := s.Read(b.Context(), 0, 1<<20)
	require.NoError(b, err)
	for _, r := range rows {
		size += int64(len(r.Record))
	}
	b.SetBytes(size)
	for b.Loop() {
		r, err := audit.VerifyStore(b.Context(), s, verifier, nil)
		if err != nil || !r.OK() {
			b.Fatal(err, r)
		}
	}
}

//go:build unix

package audit_test

import (
	"crypto/sha256"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// cpu is the time that all cores spent on this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkVerifyPerCore compares the time that cores spend on a verification with
// what SHA-256 alone takes for the same bytes.
func BenchmarkVerifyPerCore(b *testing.B) {
	signer, verifier := journaltest.Signer(b)
	s := audit.NewMemory()
	head, err := s.Head(b.Context())
	require.NoError(b, err)
	e := benchEvent()
	e.Reason, e.Request, e.Policy = "a customer asked for it by phone", "0195b1c2-7d3e-7f1a", "2026-11-21/7"
	rows := audit.FullRows(head.Log, e, 40_000)
	require.NoError(b, s.Append(b.Context(), audit.Batch{After: head, Rows: rows}))
	log, err := audit.New(b.Context(), s, journaltest.NewSealer(), signer, verifier, &audit.Options{AcceptUnsigned: true})
	require.NoError(b, err)
	require.NoError(b, log.Close())
	size := 0
	for i := range rows {
		size += len(rows[i].Record)
	}
	runtime.GC()
	var bare, verified time.Duration
	var sum [32]byte
	for b.Loop() {
		begin := cpu(b)
		for i := range rows {
			sum = sha256.Sum256(rows[i].Record)
		}
		bare += cpu(b) - begin
		begin = cpu(b)
		r, err := audit.VerifyStore(b.Context(), s, verifier, nil)
		if err != nil || !r.OK() {
			b.Fatal(err, r)
		}
		verified += cpu(b) - begin
	}
	_ = sum
	n := float64(b.N * len(rows))
	b.ReportMetric(float64(size)/float64(len(rows)), "B/entry")
	b.ReportMetric(float64(bare.Nanoseconds())/n, "sha-cpu-ns/entry")
	b.ReportMetric(float64(verified.Nanoseconds())/n, "cpu-ns/entry")
	b.ReportMetric(bare.Seconds()/verified.Seconds(), "of-sha")
}

package audit

import (
	"context"
	"os"
	"time"

	"github.com/crmguard/crmguard"
)

// Faults are what a test puts in place of parts of a Failover; nil is the real one.
type Faults struct {
	Sync     func(*os.File) error
	WriteAt  func(*os.File, []byte, int64) (int, error)
	LogHangs func() bool // then the deadline is short
	KeysHang func() bool
	Limit    time.Duration // for the spool; 0: that of the options
}

// NewFailoverWith opens one with faults.
func NewFailoverWith(l *Log, dir string, o *FailoverOptions, faults Faults) (*Failover, error) {
	files := realOps
	if faults.Sync != nil {
		files.sync = faults.Sync
	}
	if faults.WriteAt != nil {
		files.writeAt = faults.WriteAt
	}
	return newFailover(l, dir, o, files, func(f *Failover) {
		if faults.Limit > 0 {
			f.limit = faults.Limit
		}
		f.calls.within = hurried(f.calls.within, faults.LogHangs)
		f.sealing.within = hurried(f.sealing.within, faults.KeysHang)
	})
}

// hurried waits as long as it takes, but not for what hangs.
func hurried(within func(context.Context) (context.Context, context.CancelFunc), hangs func() bool) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		if hangs != nil && hangs() {
			return context.WithTimeout(ctx, 10*time.Millisecond)
		}
		return within(ctx)
	}
}

// SetKeys replaces the keys of a log.
func SetKeys(l *Log, keys crmguard.Sealer) { l.keys = keys }

// ScanSpool reads the content of a file of the spool.
func ScanSpool(content []byte) (frames, bad int) {
	var g spoolSegment
	g.scan(content)
	return len(g.frames), g.bad
}

// SpoolOffsets says where in a file of the spool each entry begins, and where the
// last one ends.
func SpoolOffsets(content []byte) []int {
	var g spoolSegment
	g.scan(content)
	var at []int
	for _, f := range g.frames {
		at = append(at, int(f.at))
	}
	return append(at, len(content))
}

// SpoolSealed returns what was sealed.
func SpoolSealed(content []byte) [][]byte {
	var g spoolSegment
	g.scan(content)
	var all [][]byte
	for _, f := range g.frames {
		_, payload, _, _ := readFrame(content, int(f.at))
		_, sealed, _ := parseSpooled(payload)
		all = append(all, sealed)
	}
	return all
}

// SpoolFrame makes an entry of a spool.
func SpoolFrame(tenant string, sealed []byte) []byte { return rebatch(spooledFrame(tenant, sealed)) }

// SpoolFile makes a file of a spool.
func SpoolFile(tenant string, sealed []byte) []byte {
	return append(appendFrame(nil, frameFile, []byte(spoolHead)), SpoolFrame(tenant, sealed)...)
}

// SpoolBody is what the log would seal of an event.
func SpoolBody(l *Log, e crmguard.Event) []byte {
	_, body, err := l.prepare(context.Background(), e)
	if err != nil {
		panic(err)
	}
	sealed, err := l.sealSpooled(context.Background(), "acme", body)
	if err != nil {
		panic(err)
	}
	return sealed
}

// SpoolEnded reports whether nothing writes to the spool any more.
func SpoolEnded(f *Failover) bool {
	select {
	case <-f.spool.ended:
		return true
	default:
		return false
	}
}

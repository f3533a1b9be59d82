package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/crmguard/crmguard"
)

// The spool keeps entries on this machine's disk until the log takes them: sealed as
// a whole, so that the disk tells nothing of them and nobody plants one without keys.
const (
	spoolVersion    = 1
	spoolHead       = "crmguard audit spool 1\n"
	spoolSuffix     = ".spool"
	spoolLeft       = ".left" // added to the name of a file of which something could not be recorded
	maxSpoolSegment = 1 << 20
	maxSpoolBatch   = 64
	spoolReserve    = 8 // of the limit this part is for what must be kept
	maxUnread       = 5 // tries until an entry is given up that the disk does not give back
)

var (
	errSpoolFull = errors.New("audit: the spool is full")
	errUnread    = errors.New("audit: an entry of the spool cannot be read")
	errKeysFail  = errors.New("audit: the keys cannot be had")
)

// spoolPlace differs from that of the inbox: what waits there may belong to a
// transaction that was rolled back, and must not be good here.
func spoolPlace(tenant string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "audit-spool"}
}

// sealSpooled seals version, id of the log, body.
func (l *Log) sealSpooled(ctx context.Context, tenant string, body []byte) ([]byte, error) {
	plain := make([]byte, 0, inboxHead+len(body))
	plain = append(plain, spoolVersion)
	plain = append(plain, l.id[:]...)
	plain = append(plain, body...)
	sealed, err := l.keys.Seal(ctx, spoolPlace(tenant), plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKeysFail, err)
	}
	return sealed, nil
}

func (l *Log) openSpooled(ctx context.Context, tenant string, sealed []byte) (*content, []byte, error) {
	plain, err := l.keys.Open(ctx, spoolPlace(tenant), sealed)
	if err != nil {
		return nil, nil, err
	}
	if len(plain) < inboxHead || plain[0] != spoolVersion || [16]byte(plain[1:inboxHead]) != l.id {
		return nil, nil, errNotOurs
	}
	body := plain[inboxHead:]
	c, err := decodeBody(body)
	if err != nil {
		return nil, nil, err
	}
	if c.tenant != tenant {
		return nil, nil, errNotOurs
	}
	return c, body, nil
}

// spool is a folder of files of frames. One goroutine writes: whatever waits goes to
// the disk in one write and one flush.
type spool struct {
	ops
	dir   string
	lock  tail // nothing is written to it
	limit int64
	queue chan *spoolWrite
	quit  chan struct{}
	ended chan struct{}

	writing sync.Mutex // the files change

	mu       sync.Mutex // what follows
	segments []*spoolSegment
	next     int // number of the next file
	tenants  map[string]int
	left     int   // frames that are nobody's entries
	poison   error // ErrPoisoned or ErrClosed
}

// spoolSegment is one file.
type spoolSegment struct {
	tail
	frames []spoolFrame
	open   int // frames that are not recorded yet
	bad    int // pieces that cannot be
	live   bool
}

type spoolFrame struct {
	at     int64
	size   int
	tenant string
	done   bool
	unread int // how often it could not be read
}

type spoolWrite struct {
	tenant string
	frame  []byte
	must   bool
	done   chan error // buffered
}

// openSpool opens the folder, or makes one, and finds what waits there.
func openSpool(dir string, limit int64, o ops) (*spool, error) {
	dir, lock, err := o.lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &spool{
		ops: o, dir: dir, lock: lock, limit: limit, tenants: make(map[string]int),
		queue: make(chan *spoolWrite, maxSpoolBatch), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	go s.run()
	return s, nil
}

func (s *spool) load() error {
	entries, err := os.ReadDir(s.dir) // sorted: names have a fixed length
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), spoolSuffix)
		n, err := strconv.Atoi(name)
		if !ok || err != nil || spoolName(n) != e.Name() {
			if strings.HasSuffix(e.Name(), spoolSuffix+spoolLeft) {
				s.left++
			}
			continue
		}
		s.next = n + 1
		path := filepath.Join(s.dir, e.Name())
		content, err := os.ReadFile(path) //nolint:gosec // the host's own path
		if err != nil {
			return err
		}
		file, err := os.Open(path) //nolint:gosec // the host's own path
		if err != nil {
			return err
		}
		g := &spoolSegment{tail: tail{file: file, size: int64(len(content)), end: int64(len(content))}}
		g.scan(content)
		s.segments = append(s.segments, g)
		for i := range g.frames {
			s.tenants[g.frames[i].tenant]++
		}
		s.left += g.bad
	}
	return nil
}

func spoolName(n int) string { return fmt.Sprintf("%010d%s", n, spoolSuffix) }

// scan finds the frames of a file that some process wrote. What a crash cut short
// was never acknowledged; other damage is gone over, and told of: what a crash left of
// the last batch in the middle of it is not told from what was changed.
func (g *spoolSegment) scan(content []byte) {
	kind, head, at, state := readFrame(content, 0)
	if state != frameOK || kind != frameFile || string(head) != spoolHead {
		g.bad++
		at = nextSpoolFrame(content, 0)
	}
	for at < len(content) {
		kind, payload, n, state := readFrame(content, at)
		tenant, _, ok := parseSpooled(payload)
		switch {
		case state == frameOK && isEntry(kind) && ok:
			g.frames = append(g.frames, spoolFrame{at: int64(at), size: n, tenant: tenant})
			g.open++
			at += n
		case state == frameTorn || bytes.HasSuffix(content, spoolZeros) && !batchAfter(content, at):
			return // the file ends within a write, perhaps in zeros
		default:
			g.bad++
			at = nextSpoolFrame(content, at+1)
		}
	}
}

// spoolZeros are more than a frame that is whole ends with.
var spoolZeros = make([]byte, 2*frameTail)

// nextSpoolFrame looks for a whole frame from b[at:] on.
func nextSpoolFrame(b []byte, at int) int {
	for ; at < len(b); at++ {
		if !isEntry(b[at]) {
			continue
		}
		if _, _, _, state := readFrame(b, at); state == frameOK {
			return at
		}
	}
	return len(b)
}

// parseSpooled reads the payload of a frame: tenant, then what was sealed.
func parseSpooled(payload []byte) (tenant string, sealed []byte, ok bool) {
	c := cutter{b: payload}
	tenant = string(c.bytes(int(binary.BigEndian.Uint16(c.bytes(2)))))
	return tenant, c.b, !c.failed && tenant != "" && clean(tenant) == tenant && len(c.b) > 0
}

func spooledFrame(tenant string, sealed []byte) []byte {
	w := writer{}
	w.count(len(tenant))
	w.text(tenant)
	return appendFrame(nil, frameEntry, w.b, sealed)
}

// waiting is how many entries wait, of one tenant or of all, and how many bytes the
// files take.
func (s *spool) waiting(tenant string) (n int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segments {
		bytes += g.end
		if tenant == "" {
			n += g.open
		}
	}
	if tenant != "" {
		n = s.tenants[tenant]
	}
	return n, bytes
}

// health is what keeps the spool from taking entries.
func (s *spool) health() (left int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left, s.poison
}

// close ends the goroutine, unless the disk hangs, and releases the folder.
func (s *spool) close(ctx context.Context) error {
	s.mu.Lock()
	if errors.Is(s.poison, ErrClosed) {
		s.mu.Unlock()
		return nil
	}
	s.poison = ErrClosed
	s.mu.Unlock()
	close(s.quit)
	select {
	case <-s.ended:
		return s.closeFiles()
	case <-ctx.Done():
		return fmt.Errorf("audit: the disk of the spool hangs: %w", ctx.Err())
	}
}

func (s *spool) closeFiles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, g := range s.segments {
		err = errors.Join(err, g.file.Close())
	}
	return errors.Join(err, s.lock.file.Close())
}

// removeFile removes a file whose entries are all recorded, or sets it aside.
func (s *spool) removeFile(g *spoolSegment) error {
	path := g.file.Name()
	_ = g.file.Close() // it was flushed, or is not needed
	if g.bad > 0 {
		return s.rename(path, path+spoolLeft)
	}
	if err := s.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

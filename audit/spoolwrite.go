package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// append returns nil when the entry is on the disk. When ctx ends it may still get
// there. Only what must be kept takes the last of the room.
func (s *spool) append(ctx context.Context, tenant string, sealed []byte, must bool) error {
	w := &spoolWrite{tenant: tenant, frame: spooledFrame(tenant, sealed), must: must, done: make(chan error, 1)}
	if _, err := s.health(); err != nil {
		return err
	}
	select {
	case s.queue <- w:
	case <-s.ended:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("audit: waiting for the spool: %w", ctx.Err())
	}
	select {
	case err := <-w.done:
		return err
	case <-s.ended:
		select {
		case err := <-w.done:
			return err
		default:
			return ErrClosed
		}
	case <-ctx.Done():
		return fmt.Errorf("audit: waiting for the spool: %w", ctx.Err())
	}
}

// run is the life of the goroutine that writes.
func (s *spool) run() {
	defer close(s.ended)
	for {
		select {
		case w := <-s.queue:
			s.write(w)
		case <-s.quit:
			return
		}
	}
}

func (s *spool) write(first *spoolWrite) {
	batch := append(make([]*spoolWrite, 0, maxSpoolBatch), first)
	for len(batch) < maxSpoolBatch && len(s.queue) > 0 {
		batch = append(batch, <-s.queue)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	room := s.room()
	var data []byte
	taken := batch[:0]
	for _, w := range batch {
		left := room
		if !w.must {
			left -= int(s.limit / spoolReserve)
		}
		if len(data)+len(w.frame) > left {
			w.done <- errSpoolFull
			continue
		}
		data = append(data, w.frame...)
		taken = append(taken, w)
	}
	if len(taken) == 0 {
		return
	}
	data = rebatch(data)
	err := s.writeFrames(taken, data)
	for _, w := range taken {
		w.done <- err
	}
}

// rebatch marks the first frame as the beginning of a batch.
func rebatch(data []byte) []byte {
	_, payload, n, _ := readFrame(data, 0)
	return append(appendFrame(make([]byte, 0, len(data)), frameBatch, payload), data[n:]...)
}

func (s *spool) room() int {
	_, used := s.waiting("")
	return int(max(0, s.limit-used-int64(len(spoolHead)+frameHead+frameTail)))
}

func (s *spool) writeFrames(batch []*spoolWrite, data []byte) error {
	g, err := s.current()
	if err != nil {
		return err
	}
	t := g.tail
	err = s.ops.write(&t, data)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := g.size
	g.tail = t
	if errors.Is(err, ErrPoisoned) && s.poison == nil {
		s.poison = ErrPoisoned
	}
	if err != nil {
		return err
	}
	for _, w := range batch {
		g.frames = append(g.frames, spoolFrame{at: at, size: len(w.frame), tenant: w.tenant})
		g.open++
		s.tenants[w.tenant]++
		at += int64(len(w.frame))
	}
	return nil
}

// current returns the file that is written to, if it is still the one that others
// will find, or begins one. The disk may hang meanwhile, but nobody who asks how the
// spool stands.
func (s *spool) current() (*spoolSegment, error) {
	s.mu.Lock()
	poison, next := s.poison, s.next
	var g *spoolSegment
	if n := len(s.segments); n > 0 && s.segments[n-1].live && s.segments[n-1].size < maxSpoolSegment {
		g = s.segments[n-1]
	}
	s.mu.Unlock()
	if poison != nil {
		return nil, poison
	}
	err := s.lock.untouched()
	if err == nil && g != nil {
		err = g.untouched()
	}
	name := spoolName(next)
	if err == nil && g == nil {
		if _, errName := os.Lstat(filepath.Join(s.dir, name)); errName == nil {
			err = fmt.Errorf("audit: somebody else made %s: %w", name, ErrPoisoned)
		}
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.poison = ErrPoisoned
		return nil, err
	}
	if g != nil {
		return g, nil
	}
	t, err := s.createFile(s.dir, name, appendFrame(nil, frameFile, []byte(spoolHead)))
	if err != nil {
		return nil, fmt.Errorf("audit: begin a file of the spool: %w", err)
	}
	g = &spoolSegment{tail: t, live: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	s.segments = append(s.segments, g)
	return g, nil
}

// spooled is an entry that waits, as it is on the disk.
type spooled struct {
	segment *spoolSegment
	frame   int
	tenant  string
	sealed  []byte // nil: it could not be read, this often
	unread  int
}

// peek returns at most n entries that wait, oldest first, without those of some
// tenants.
func (s *spool) peek(n int, without map[string]bool) []spooled {
	s.mu.Lock()
	type place struct {
		spooled
		file     *os.File
		at, size int64
	}
	var places []place
	for _, g := range s.segments {
		for i := 0; i < len(g.frames) && g.open > 0 && len(places) < n; i++ {
			if f := &g.frames[i]; !f.done && !without[f.tenant] {
				places = append(places, place{spooled{segment: g, frame: i, tenant: f.tenant}, g.file, f.at, int64(f.size)})
			}
		}
	}
	s.mu.Unlock()
	found := make([]spooled, len(places))
	for i, p := range places {
		b := make([]byte, p.size)
		if _, err := p.file.ReadAt(b, p.at); err == nil {
			_, payload, _, state := readFrame(b, 0)
			tenant, sealed, ok := parseSpooled(payload)
			if ok && state == frameOK && tenant == p.tenant {
				p.sealed = sealed
			}
		}
		if p.sealed == nil {
			p.unread = s.unread(p.spooled)
		}
		found[i] = p.spooled
	}
	return found
}

// unread counts how often an entry could not be read.
func (s *spool) unread(e spooled) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &e.segment.frames[e.frame]
	f.unread++
	return f.unread
}

// done takes an entry out: it is recorded, or good for nothing.
func (s *spool) done(e spooled, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &e.segment.frames[e.frame]
	if f.done {
		return
	}
	f.done = true
	e.segment.open--
	if s.tenants[f.tenant]--; s.tenants[f.tenant] == 0 {
		delete(s.tenants, f.tenant)
	}
	if !good {
		e.segment.bad++
		s.left++
	}
}

// trim removes files of which nothing waits any more, unless the disk is busy.
func (s *spool) trim() error {
	if !s.writing.TryLock() {
		return nil
	}
	defer s.writing.Unlock()
	s.mu.Lock()
	var finished []*spoolSegment
	kept := s.segments[:0:0]
	for _, g := range s.segments {
		if g.open == 0 {
			finished = append(finished, g)
		} else {
			kept = append(kept, g)
		}
	}
	s.segments = kept
	s.mu.Unlock()
	var err error
	for _, g := range finished {
		err = errors.Join(err, s.removeFile(g))
	}
	if len(finished) > 0 {
		err = errors.Join(err, s.syncDir(s.dir))
	}
	if err != nil {
		return fmt.Errorf("audit: remove what is recorded from the spool: %w", err)
	}
	return nil
}

package audit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	pageSize   = 512 // entries that a goroutine reads and checks at a time
	maxWorkers = 16  // pages that are held at once
)

// page is a part of a log on its way through a verification.
type page struct {
	from, to int64
	rows     []Row        // as far as they are right, each seen by itself and with those before it in the page
	spans    []int        // rows that complete subtrees which began before the page
	lost     []lost       // what rows say about the inbox
	bad      *BrokenError // what is wrong with the row after them
	err      error        // why it could not be read
	done     chan struct{}
}

// peeker is what the stores of this package have for readers that change nothing:
// Read without copies.
type peeker interface {
	peek(ctx context.Context, from int64, n int) ([]Row, error)
}

// pages reads and checks the rows from..to-1 and hands them to join in order, until
// that returns false. Whether the first row of a page continues the page before is for join
// to check.
func pages(ctx context.Context, s Store, log [16]byte, from, to int64, join func(*page) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	read := s.Read
	if p, ok := s.(peeker); ok {
		read = p.peek
	}
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	todo, inOrder := make(chan *page), make(chan *page, workers)
	wg.Go(func() {
		defer close(todo)
		defer close(inOrder)
		for from < to {
			end := min((from/pageSize+1)*pageSize, to)
			p := &page{from: from, to: end, done: make(chan struct{})}
			from = end
			for _, queue := range []chan *page{inOrder, todo} {
				select {
				case queue <- p:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for range workers {
		wg.Go(func() {
			c := checker{log: log, hash: newHasher()}
			for p := range todo {
				p.read(ctx, read, &c)
				close(p.done)
			}
		})
	}
	for p := range inOrder {
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if more, err := join(p); err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// read fills a page. A store that has no more rows leaves it short.
func (p *page) read(ctx context.Context, read func(context.Context, int64, int) ([]Row, error), c *checker) {
	for seq := p.from; seq < p.to; {
		if p.err = ctx.Err(); p.err != nil {
			return
		}
		rows, err := read(ctx, seq, int(p.to-seq))
		if broken, ok := errors.AsType[*BrokenError](err); ok {
			p.bad = broken
			return
		}
		if err != nil {
			p.err = fmt.Errorf("audit: read entries: %w", err)
			return
		}
		if len(rows) == 0 {
			return
		}
		if p.bad = c.check(p, rows); p.bad != nil {
			return
		}
		seq += int64(len(rows))
	}
}

// checker is what a goroutine uses again for each page.
type checker struct {
	log  [16]byte
	hash *hasher
	body outline
}

// check appends rows to the page, up to the first that is wrong.
func (c *checker) check(p *page, rows []Row) *BrokenError {
	first := len(p.rows)
	if first == 0 {
		p.rows = rows
	} else {
		p.rows = append(p.rows[:first:first], rows...)
	}
	for n := first; n < len(p.rows); n++ {
		if detail := c.row(p, n); detail != "" {
			p.rows = p.rows[:n]
			return &BrokenError{Seq: p.from + int64(n), Detail: detail}
		}
		p.lost = appendLost(p.lost, &p.rows[n])
	}
	return nil
}

// row says what is wrong with row n of the page. Those before it are right.
func (c *checker) row(p *page, n int) string {
	row, seq := &p.rows[n], p.from+int64(n)
	if row.Seq != seq {
		return fmt.Sprintf("missing; the next one is %d", row.Seq)
	}
	rec := row.Record
	switch {
	case checkHead(rec) != nil || c.body.read(rec[headSize:]) != nil:
		return "its record does not decode"
	case numberOf(rec) != seq:
		return fmt.Sprintf("its record says that it is entry %d", numberOf(rec))
	case logOf(rec) != c.log:
		return "its record is of another log"
	case n > 0 && previousOf(rec) != p.rows[n-1].leaf():
		return "the chain does not continue"
	case len(row.Hashes) != hashCount(seq) || !c.hash.isLeaf(&row.Hashes[0], rec):
		return "the record does not have the hash that was stored"
	}
	for level := 1; level < len(row.Hashes); level++ {
		left := n - 1<<(level-1)
		if left+1 < 1<<(level-1) {
			p.spans = append(p.spans, n)
			break
		}
		if !c.hash.isNode(&row.Hashes[level], &p.rows[left].Hashes[level-1], &row.Hashes[level-1]) {
			return "a hash of the tree was changed"
		}
	}
	if !c.body.says(&row.Keys) {
		return "what it is found by is not what the record says"
	}
	return ""
}

// continues checks what the first rows have in common with what came before, and
// cuts the page at the first that is wrong.
func (p *page) continues(at *position) {
	cut := func(n int, detail string) {
		p.bad = &BrokenError{Seq: p.from + int64(n), Detail: detail}
		p.rows = p.rows[:n]
	}
	chained := len(p.rows) == 0 || previousOf(p.rows[0].Record) == at.last
	for _, n := range p.spans {
		if n >= len(p.rows) {
			break
		}
		row := &p.rows[n]
		for level := 1; level < len(row.Hashes); level++ {
			if row.Hashes[level] != nodeHash(p.node(at, row.Seq+1-1<<(level-1), level-1), row.Hashes[level-1]) {
				cut(n, "a hash of the tree was changed")
				break
			}
		}
	}
	if !chained && len(p.rows) > 0 {
		cut(0, "the chain does not continue")
	}
}

// accept checks that rows come next, and moves on over those that do.
func (p *position) accept(rows []Row) error {
	next := page{from: p.size}
	c := checker{log: p.log, hash: newHasher()}
	next.bad = c.check(&next, rows)
	next.continues(p)
	*p = next.position(p, next.from+int64(len(next.rows)))
	if next.bad != nil {
		return next.bad
	}
	return nil
}

// node is the root of the subtree of 2^level entries before end. Its rows are right.
func (p *page) node(at *position, end int64, level int) [32]byte {
	if end <= at.size {
		return at.peak(level)
	}
	return p.rows[end-1-p.from].Hashes[level]
}

// position is the log up to size entries, size being in or at the end of the page,
// which continues at.
func (p *page) position(at *position, size int64) position {
	next := position{log: at.log, size: size, last: at.last}
	if size > p.from {
		next.last = p.rows[size-1-p.from].leaf()
	}
	next.peaks = make([]tlog.Hash, 0, 64)
	for level := 62; level >= 0; level-- {
		if size>>level&1 == 1 {
			next.peaks = append(next.peaks, p.node(at, size>>level<<level, level))
		}
	}
	return next
}

package audit

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
)

// span is the counters from, from+1, … to-1.
type span struct{ from, to int64 }

// spans is a set of counters: in order, none empty, none touching the next.
// Counters are settled nearly in the order in which they are issued, so there are few.
type spans []span

// add puts from, from+1, … to-1 into the set.
func (s *spans) add(from, to int64) {
	if from >= to {
		return
	}
	list := *s
	i, _ := slices.BinarySearchFunc(list, from, func(e span, from int64) int {
		if e.to < from { // ends before, without touching
			return -1
		}
		return 1
	})
	j := i
	for j < len(list) && list[j].from <= to {
		from, to = min(from, list[j].from), max(to, list[j].to)
		j++
	}
	*s = slices.Replace(list, i, j, span{from, to})
}

func (s *spans) addAll(o spans) {
	for _, e := range o {
		s.add(e.from, e.to)
	}
}

func (s spans) clone() spans { return slices.Clone(s) }

// minus is what is in s and not in o.
func (s spans) minus(o spans) spans {
	var rest spans
	i := 0
	for _, e := range s {
		for i < len(o) && o[i].to <= e.from {
			i++
		}
		for j := i; j < len(o) && o[j].from < e.to; j++ {
			if e.from < o[j].from {
				rest = append(rest, span{e.from, o[j].from})
			}
			e.from = max(e.from, o[j].to)
		}
		if e.from < e.to {
			rest = append(rest, e)
		}
	}
	return rest
}

// both is what is in s and in o.
func (s spans) both(o spans) spans { return s.minus(s.minus(o)) }

// top is more than each counter of the set.
func (s spans) top() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].to
}

func (s spans) count() (n int64) {
	for _, e := range s {
		n += e.to - e.from
	}
	return n
}

// String is like "0-4,7".
func (s spans) String() string {
	var b strings.Builder
	for i, e := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(e.from, 10))
		if e.to-e.from > 1 {
			b.WriteByte('-')
			b.WriteString(strconv.FormatInt(e.to-1, 10))
		}
	}
	return b.String()
}

func appendSpans(b []byte, s spans) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // few
	for _, e := range s {
		b = binary.BigEndian.AppendUint64(b, uint64(e.from)) //nolint:gosec // never negative
		b = binary.BigEndian.AppendUint64(b, uint64(e.to))   //nolint:gosec // never negative
	}
	return b
}

// cutter takes numbers off the front of b. After a failure it returns zero values.
type cutter struct {
	b      []byte
	failed bool
}

func (c *cutter) bytes(n int) []byte {
	if c.failed || n > len(c.b) {
		c.failed = true
		return make([]byte, min(n, 32))
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

// number is not negative.
func (c *cutter) number() int64 {
	v := binary.BigEndian.Uint64(c.bytes(8))
	if v > math.MaxInt64 {
		c.failed = true
		return 0
	}
	return int64(v)
}

func (c *cutter) id() [16]byte { return [16]byte(c.bytes(16)) }

// spans are in the one form that add leaves.
func (c *cutter) spans() spans {
	n := int(binary.BigEndian.Uint32(c.bytes(4)))
	if c.failed || n > len(c.b)/16 {
		c.failed = true
		return nil
	}
	list := make(spans, n)
	last := int64(-1)
	for i := range list {
		list[i] = span{c.number(), c.number()}
		if list[i].from <= last || list[i].to <= list[i].from {
			c.failed = true
			return nil
		}
		last = list[i].to
	}
	return list
}

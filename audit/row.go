package audit

import (
	"bytes"
	"slices"
)

// Check returns a *[BrokenError] unless number and keys of the row are what its
// record says. It says nothing about hashes. A store asks before it lets a row
// that was there decide something.
func (r *Row) Check() error {
	rec, err := decodeRecord(r.Record)
	if err != nil {
		return &BrokenError{Seq: r.Seq, Detail: "its record does not decode"}
	}
	if keys := rec.keys(); rec.seq != r.Seq || !keys.equal(&r.Keys) {
		return &BrokenError{Seq: r.Seq, Detail: "its record says something else than the columns beside it"}
	}
	return nil
}

// clone returns a row that shares no memory with r.
func (r *Row) clone() Row {
	c := *r
	c.Record, c.Hashes, c.Keys.Clients = bytes.Clone(r.Record), slices.Clone(r.Hashes), slices.Clone(r.Keys.Clients)
	return c
}

func (c *Checkpoint) clone() Checkpoint { return Checkpoint{Size: c.Size, Note: bytes.Clone(c.Note)} }

package audit

import (
	"bytes"
	"slices"
	"strings"
)

// Check returns a *[BrokenError] unless number and keys of the row are what its
// record says. It says nothing about hashes. A store asks before it lets a row
// that was there decide something.
func (r *Row) Check() error {
	_, err := r.Entry()
	return err
}

// Entry returns what the record of the row says, and a *[BrokenError] unless number
// and keys of the row are the same. It says nothing about hashes.
func (r *Row) Entry() (Entry, error) {
	rec, err := decodeRecord(r.Record)
	if err != nil {
		return Entry{}, &BrokenError{Seq: r.Seq, Detail: "its record does not decode"}
	}
	if keys := rec.keys(); rec.seq != r.Seq || !keys.equal(&r.Keys) {
		return Entry{}, &BrokenError{Seq: r.Seq, Detail: "its record says something else than the columns beside it"}
	}
	return rec.entry(), nil
}

// leaf is the hash of the record. A row without hashes is no entry's.
func (r *Row) leaf() [32]byte {
	if len(r.Hashes) == 0 {
		return [32]byte{}
	}
	return r.Hashes[0]
}

// cloneRows returns rows that share no memory with these, but four pieces among each other.
func cloneRows(rows []Row) []Row {
	if len(rows) == 0 {
		return nil
	}
	records, hashes, clients := 0, 0, 0
	for i := range rows {
		r := &rows[i]
		records, hashes, clients = records+len(r.Record), hashes+len(r.Hashes), clients+len(r.Keys.Clients)
	}
	copies := slices.Clone(rows)
	allRecords, allHashes, allClients := make([]byte, 0, records), make([][32]byte, 0, hashes), make([]string, 0, clients)
	for i := range copies {
		r := &copies[i]
		r.Record = moved(&allRecords, r.Record)
		r.Hashes = moved(&allHashes, r.Hashes)
		r.Keys.Clients = moved(&allClients, r.Keys.Clients)
	}
	return copies
}

// ownKeys gives keys memory of their own: that of a caller's strings may be one that a
// framework uses again. What rows are compared by lies side by side.
func ownKeys(rows []Row) {
	each := func(visit func(s *string)) {
		for i := range rows {
			k := &rows[i].Keys
			for _, s := range k.texts() {
				visit(s)
			}
			visit(&k.Addr)
			for c := range k.Clients {
				visit(&k.Clients[c])
			}
		}
	}
	var all strings.Builder
	each(func(s *string) { all.WriteString(*s) })
	rest := all.String()
	each(func(s *string) { *s, rest = rest[:len(*s)], rest[len(*s):] })
}

// moved copies list to the end of all, whose memory is large enough.
func moved[T any](all *[]T, list []T) []T {
	if list == nil {
		return nil
	}
	from := len(*all)
	*all = append(*all, list...)
	return (*all)[from:len(*all):len(*all)]
}

func (c *Checkpoint) clone() Checkpoint { return Checkpoint{Size: c.Size, Note: bytes.Clone(c.Note)} }

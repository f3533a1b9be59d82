package audit

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

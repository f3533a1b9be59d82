package sqldb

import "bytes"

// Text, Number and Blob read a column without an error, whatever somebody has
// written into it: a value of another type, or NULL, is one that is not valid. Stores
// of rows that are authenticated use them, so that a planted value is found by the
// MAC and keeps nobody from replacing the row.

// Text is a column of text.
type Text struct {
	String string
	Valid  bool // not NULL and of this type
}

// Scan implements sql.Scanner.
func (t *Text) Scan(value any) error {
	switch v := value.(type) {
	case string:
		*t = Text{v, true}
	case []byte:
		*t = Text{string(v), true}
	default:
		*t = Text{}
	}
	return nil
}

// Number is a column of integers.
type Number struct {
	Int64 int64
	Valid bool // not NULL and of this type
}

// Scan implements sql.Scanner.
func (n *Number) Scan(value any) error {
	v, ok := value.(int64)
	*n = Number{v, ok}
	return nil
}

// Blob is a column of bytes, nil for NULL and for another type.
type Blob []byte

// Scan implements sql.Scanner.
func (b *Blob) Scan(value any) error {
	v, _ := value.([]byte)
	*b = bytes.Clone(v)
	return nil
}

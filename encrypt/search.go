package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"

	"github.com/crmguard/crmguard"
)

// Query says what [Table.Search] looks for: "anna pet" finds Anna Petrova, "495 12" finds
// +7 (495) 123-45-67.
//
// The text is split into words at spaces; each must occur in one of the fields, as a
// substring. Case, accents, compatibility forms (ﬁ, Ａ), ё and е, and kinds of
// dashes, apostrophes and spaces make no difference; й and и do, as other letters. Words of
// digits that stand side by side, without a comma or the like, are one number, however it is spaced,
// and are looked for in the numbers of the fields, likewise without what separates their
// digits. A number of five or more digits that begins with 7 or 8 is found with
// the other one too: both lead into the same Russian number. A text without letters, digits
// or symbols finds nothing.
type Query struct {
	Text   string   // as people type it
	Fields []string // logical names of the fields to look into, which are texts
	Limit  int      // how many rows to find; at least 1
}

// Found is what [Table.Search] has found.
type Found[T any] struct {
	Rows []*T // in the order in which they came, opened; they may be fewer than asked for

	// Last is the last row that was looked at: the search for more goes on behind it.
	// It is nil once there are no more.
	Last *T

	Looked  int // rows that were looked at
	Skipped int // of them, rows that did not open, such as those of erased clients
}

// Search finds rows that contain what somebody typed, by opening them and looking: there is
// no index of substrings, and nothing about the query is stored or logged.
//
// The host's next returns a page of rows, still sealed, that come after a row, in an order of
// its own; nil is before all that this search wants. An empty page ends the search. Where edits move rows
// in that order, as in one by the time of the last edit, those that move meanwhile may be missed. The
// rows must be those that the subject may see: rights, and filters that need no opened
// field, belong in its SQL. Pages of about 500 rows do well. It is called by one
// goroutine at a time, for the next page while one is looked at; a panic in it continues in the
// goroutine of the caller. Pages are copied before next is called again, so that what is
// opened is what was asked about: the rows of [Found] are not those of next.
//
// Only the fields looked into are opened, and those of the rows found. Values that still wait for
// [Table.Migrate] are looked at as [Table.Open] shows them. Options.OnOpen is asked
// about each page, before any of it is opened; where it refuses, the search ends with
// its error, as with that of next or of ctx. Beside an error stands what was found before.
//
// A search is fast where the keys of the clients are in the cache, and takes about four times
// as long where they come from the key store: Options.CacheEntries of twice the clients
// that are searched keeps nearly all of them.
func (t *Table[T]) Search(ctx context.Context, tenant string, q Query, next func(ctx context.Context, after *T) ([]*T, error)) (Found[T], error) {
	var found Found[T]
	if err := checkSubject(ctx, tenant); err != nil {
		return found, err
	}
	s, err := t.model.searcher(tenant, q)
	if err != nil || s.matcher.empty() {
		return found, err
	}
	reading, cancel := context.WithCancel(ctx)
	r := reader[T]{model: t.model, next: next, pages: make(chan page[T]), done: make(chan struct{})}
	go r.run(reading)
	defer func() { // next is not called any more when Search has returned
		cancel()
		<-r.done
		r.giveBack()
	}()
	for {
		var p page[T]
		select {
		case <-ctx.Done():
			return found, ctx.Err()
		case <-r.done: // without a last page
			return found, ctx.Err()
		case p = <-r.pages:
		}
		if p.err != nil {
			return found, p.err
		}
		if len(p.rows) == 0 {
			found.Last = nil
			return found, nil
		}
		if err := lookAt(ctx, s, &found, p.rows); err != nil {
			return found, err
		}
		if len(found.Rows) == q.Limit {
			return found, nil
		}
	}
}

type page[T any] struct {
	rows []T
	err  error
}

// reader reads one page ahead, until there are no more or its context ends.
type reader[T any] struct {
	model *Model
	next  func(ctx context.Context, after *T) ([]*T, error)
	pages chan page[T]

	done     chan struct{}
	returned bool // else next has ended the goroutine
	panicked any
}

func (r *reader[T]) run(ctx context.Context) {
	defer close(r.done)
	defer func() { r.panicked = recover() }()
	var last *T
	for {
		rows, err := r.next(ctx, last)
		copies, copyErr := copyRows(r.model, rows)
		if err == nil {
			err = copyErr
		}
		select {
		case <-ctx.Done():
			r.returned = true
			return
		case r.pages <- page[T]{copies, err}:
		}
		if err != nil || len(rows) == 0 {
			r.returned = true
			return
		}
		last = rows[len(rows)-1]
	}
}

// giveBack lets a goroutine end as next has ended that of the reader, where net/http and
// tests expect it.
func (r *reader[T]) giveBack() {
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case !r.returned:
		runtime.Goexit()
	}
}

// copyRows takes from the host what is looked at while it reads the next page, perhaps
// into the same memory. Their plain fields are emptied: what stands there is not believed.
func copyRows[T any](m *Model, rows []*T) ([]T, error) {
	copies := make([]T, len(rows))
	for i, row := range rows {
		if row == nil {
			return nil, errNil
		}
		copies[i] = *row
		mine := reflect.ValueOf(&copies[i]).Elem()
		m.zero(mine)
		m.detach(mine)
	}
	return copies, nil
}

// detach copies what is stored of the fields of a row.
func (m *Model) detach(row reflect.Value) {
	for i := range m.plan.fields {
		field := &m.plan.fields[i]
		sealed := at(row, field.sealed)
		sealed.SetBytes(bytes.Clone(sealed.Bytes()))
		if field.legacy == nil {
			continue
		}
		switch legacy := at(row, field.legacy); {
		case legacy.Kind() == reflect.Slice:
			legacy.SetBytes(bytes.Clone(legacy.Bytes()))
		case legacy.Kind() == reflect.Pointer && !legacy.IsNil():
			text := reflect.New(legacy.Type().Elem())
			text.Elem().Set(legacy.Elem())
			legacy.Set(text)
		}
	}
}

// searcher looks through pages of a table.
type searcher struct {
	model    *Model
	tenant   string
	matcher  *matcher
	fields   []fieldPlan
	limit    int
	cells    []Cell
	haystack []byte
}

func (m *Model) searcher(tenant string, q Query) (*searcher, error) {
	if len(q.Fields) == 0 || q.Limit < 1 {
		return nil, errors.New("encrypt: a search needs fields and a limit")
	}
	s := &searcher{model: m, tenant: tenant, matcher: newMatcher(q.Text), limit: q.Limit}
	for _, name := range q.Fields {
		field := m.plan.field(name)
		if field == nil || !field.form.isText() {
			return nil, fmt.Errorf("encrypt: table %s has no text %q", m.kind, name)
		}
		s.fields = append(s.fields, *field)
	}
	return s, nil
}

// lookAt adds what it finds in a page, up to the limit.
func lookAt[T any](ctx context.Context, s *searcher, found *Found[T], rows []T) error {
	pointers := make([]*T, len(rows))
	for i := range rows {
		pointers[i] = &rows[i]
	}
	if err := s.open(ctx, values(pointers, nil)); err != nil {
		return err
	}
	for i := 0; i < len(rows) && len(found.Rows) < s.limit; i++ {
		row := pointers[i]
		matches, err := s.matches(i)
		if err == nil && matches {
			row = new(T) // keeps no page in memory
			*row = rows[i]
			err = s.model.openRows(ctx, s.tenant, values([]*T{row}, nil), true)
			if _, ok := errors.AsType[RowErrors](err); err != nil && !ok {
				return err // a search for more looks at this row again
			}
		}
		found.Last = row
		found.Looked++
		switch {
		case err != nil:
			found.Skipped++
		case matches:
			found.Rows = append(found.Rows, row)
		}
	}
	return nil
}

// open opens the fields to look into. Rows keep what they hold: those that are not found
// stay closed.
func (s *searcher) open(ctx context.Context, rows []reflect.Value) error {
	n := len(rows) * len(s.fields)
	if cap(s.cells) < n {
		s.cells = make([]Cell, n)
	}
	s.cells = s.cells[:n]
	for i, row := range rows {
		var place crmguard.Place
		err := s.model.ids(&place, s.tenant, row)
		for j, field := range s.fields {
			place.Field = field.name
			s.cells[i*len(s.fields)+j] = Cell{Place: place, Sealed: row.FieldByIndex(field.sealed).Bytes(), Err: err}
		}
	}
	return s.model.openCells(ctx, s.tenant, s.fields, rows, s.cells, false)
}

// matches looks at a row of the page.
func (s *searcher) matches(row int) (bool, error) {
	s.haystack = s.haystack[:0]
	for _, cell := range s.cells[row*len(s.fields) : (row+1)*len(s.fields)] {
		if cell.Err != nil {
			return false, cell.Err
		}
		s.haystack = append(fold(s.haystack, cell.Plaintext), 0)
	}
	return s.matcher.match(s.haystack), nil
}

package encrypt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// JobOptions of the jobs that walk a table. Nil means the defaults. A row that is committed while
// a job walks may lie behind its Cursor, whatever sequence gave it its id: only a later call from the start is
// sure to see it.
type JobOptions struct {
	// After is the Cursor of a job that was cut off; empty: from the start. The report of such a call,
	// and its OK, are about the rest of the table. Migrate and
	// MaintainIndex find out by themselves what is left, and refuse it.
	After string
	Batch int // rows a transaction, at most 10,000; 0: 500

	// Progress is called after each batch, with all that was done since the job was
	// called. Whoever stores the Cursor can continue there, even after kill -9. Its error ends the job.
	Progress func(ctx context.Context, r Report) error
}

// Report says what a job has found and done. Findings are counted by value: a row
// has as many as it has fields.
type Report struct {
	Cursor string // the last record that is done, for JobOptions.After; empty in jobs that refuse one

	Rows    int // read
	Changed int // of them

	Erased     int // values of clients that are erased: nobody can open them
	Plaintext  int // in a column of plaintext, where it is not accepted any more
	Malformed  int // no sealed values: plaintext that somebody has put past the hooks, or damage
	Foreign    int // sealed for another place, or changed
	Unreadable int // the key is missing or damaged, what was sealed does not fit the field, or it is a duplicate of a unique value
	Busy       int // somebody else changed the row each time; the next run from the start takes it

	Findings []*RowError // the first 100 of these, without those of erased clients; Row is always 0
}

// OK says whether all values are as they should be. Those of erased clients are.
func (r *Report) OK() bool {
	return r.Plaintext+r.Malformed+r.Foreign+r.Unreadable+r.Busy == 0
}

const (
	defaultBatch = 500
	maxRows      = 10_000
	maxFindings  = 100
)

// ErrPlaintext says that a value lies there in plaintext although it must be sealed.
var ErrPlaintext = errors.New("encrypt: plaintext, where only sealed values are accepted")

var (
	errBusy  = errors.New("encrypt: somebody else changed the row each time")
	errRows  = errors.New("encrypt: a job needs rows, and a batch is 1 to 10,000 rows")
	errAfter = errors.New("encrypt: this job has no cursor: the key store or the index knows what is left, so JobOptions.After is empty")
)

// outcome is what became of one row.
type outcome struct {
	changed bool
	bad     []*RowError
}

func (o *outcome) add(place *crmguard.Place, err error) {
	o.bad = append(o.bad, &RowError{Record: place.Record, Field: place.Field, Err: err})
}

func (r *Report) add(o outcome) {
	r.Rows++
	if o.changed {
		r.Changed++
	}
	for _, e := range o.bad {
		switch {
		case errors.Is(e.Err, crmguard.ErrErased):
			r.Erased++
			continue
		case errors.Is(e.Err, ErrPlaintext):
			r.Plaintext++
		case errors.Is(e.Err, ErrMalformed):
			r.Malformed++
		case errors.Is(e.Err, ErrForeign):
			r.Foreign++
		case errors.Is(e.Err, errBusy):
			r.Busy++
		default:
			r.Unreadable++
		}
		if len(r.Findings) < maxFindings {
			r.Findings = append(r.Findings, e)
		}
	}
}

// rowsJob is what a job does with rows: it returns what became of each, and which were
// changed by somebody else and must be read again.
type rowsJob func(ctx context.Context, rows []Row) (outcomes []outcome, stale []string, err error)

// checkJob lets jobs run as the system only: what they open nobody sees, so no person's
// norm counts it.
func checkJob(ctx context.Context, tenant string, rows Rows, o *JobOptions) (JobOptions, error) {
	if err := checkSubject(ctx, tenant); err != nil {
		return JobOptions{}, err
	}
	if s, _ := crmguard.SubjectFrom(ctx); s.Kind != crmguard.KindSystem {
		return JobOptions{}, errSystem
	}
	var options JobOptions
	if o != nil {
		options = *o
	}
	setDefault(&options.Batch, defaultBatch)
	if rows == nil || options.Batch < 0 || options.Batch > maxRows {
		return JobOptions{}, errRows
	}
	return options, nil
}

// checkUncut is checkJob for jobs that need no cursor.
func checkUncut(ctx context.Context, tenant string, rows Rows, o *JobOptions) (JobOptions, error) {
	options, err := checkJob(ctx, tenant, rows, o)
	if err == nil && options.After != "" {
		err = errAfter
	}
	return options, err
}

// walk does something with all rows of a table.
func walk(ctx context.Context, tenant string, rows Rows, o *JobOptions, do rowsJob) (Report, error) {
	options, err := checkJob(ctx, tenant, rows, o)
	if err != nil {
		return Report{}, err
	}
	report := Report{Cursor: options.After}
	for {
		page, err := rows.Page(ctx, tenant, report.Cursor, options.Batch)
		if err != nil {
			return report, fmt.Errorf("encrypt: read rows: %w", err)
		}
		if len(page) > 0 {
			if err := report.settle(ctx, tenant, rows, page, do); err != nil {
				return report, err
			}
			report.Cursor = page[len(page)-1].Record
			if err := options.progress(ctx, &report); err != nil {
				return report, err
			}
		}
		if len(page) < options.Batch {
			return report, nil
		}
	}
}

// progress shows what was done, and ends a job that was canceled between two batches.
func (o *JobOptions) progress(ctx context.Context, r *Report) error {
	if o.Progress != nil {
		shown := *r
		shown.Findings = slices.Clone(r.Findings)
		if err := o.Progress(ctx, shown); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// How often and long a job comes back to a row that others keep changing: about two
// seconds in all.
const (
	rounds     = 10
	firstPause = 5 * time.Millisecond
	maxPause   = 400 * time.Millisecond
)

// settle does something with rows, again with those that had changed meanwhile.
func (r *Report) settle(ctx context.Context, tenant string, rows Rows, page []Row, do rowsJob) error {
	pause := firstPause
	for round := range rounds {
		outcomes, stale, err := do(ctx, page)
		if err != nil {
			return err
		}
		for i, o := range outcomes {
			switch {
			case !slices.Contains(stale, page[i].Record):
				r.add(o)
			case round == rounds-1:
				r.add(outcome{bad: []*RowError{{Record: page[i].Record, Err: errBusy}}})
			}
		}
		if len(stale) == 0 || round == rounds-1 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // spreads the load, decides nothing
		}
		pause = min(2*pause, maxPause)
		if page, err = rows.Get(ctx, tenant, stale); err != nil {
			return fmt.Errorf("encrypt: read rows: %w", err)
		}
	}
	return nil
}

// place is where a field of a row lives.
func (m *Model) place(tenant string, row *Row, field string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Client: row.Client, Kind: m.kind, Record: row.Record, Field: field}
}

func checkRow(row *Row) error {
	if row.Record == "" || row.Client == "" {
		return errIDs
	}
	return checkName(row.Record, row.Client)
}

// passing says whether an error is nothing about the value: the job ends with it.
func passing(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || errors.Is(err, crmguard.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded))
}

// sealLiving seals cells but those of clients whose erasure has begun, which get an
// error, and returns the keys of more scopes.
func (k *Keyring) sealLiving(ctx context.Context, tenant string, cells []*Cell, more []Scope) ([]*scopeKeys, error) {
	for {
		living := make([]Cell, 0, len(cells))
		from := make([]*Cell, 0, len(cells))
		for _, c := range cells {
			if c.Err == nil {
				living = append(living, *c)
				from = append(from, c)
			}
		}
		keys, err := k.sealAll(ctx, tenant, living, more)
		if e, ok := errors.AsType[*RowError](err); ok && !passing(ctx, err) {
			refused := from[e.Row]
			for _, c := range from {
				if c == refused || errors.Is(err, crmguard.ErrErased) && c.Place.Client == refused.Place.Client {
					c.Err = e.Err
				}
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		for i, c := range from {
			c.Sealed = living[i].Sealed
		}
		return keys, nil
	}
}

package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

func TestReencrypt(t *testing.T) {
	n := &norm{}
	f := newFullTable(t, 25, encrypt.Options{OnOpen: n.OnOpen})
	f.rotate(t, contactIDs(20)...)
	before := f.row(t, "c24")
	var shown []encrypt.Report
	report, err := f.contacts.Reencrypt(job("acme"), "acme", f, &encrypt.JobOptions{Batch: 10, Progress: func(_ context.Context, r encrypt.Report) error {
		shown = append(shown, r)
		return nil
	}})
	require.NoError(t, err)
	require.Equal(t, encrypt.Report{Cursor: "c24", Rows: 25, Changed: 20}, report)
	require.True(t, report.OK())
	require.Len(t, shown, 3)
	require.Equal(t, encrypt.Report{Cursor: "c09", Rows: 10, Changed: 10}, shown[0])
	for i, c := range page(25) {
		r := f.row(t, c.ID)
		want := byte(2)
		if i >= 20 {
			want = 1
		}
		require.Equal(t, want, version(r.Sealed["phone"]))
		require.Equal(t, want, version(r.Sealed["note"]))
		got := asContact(r)
		require.NoError(t, f.contacts.Open(job("acme"), "acme", got))
		require.Equal(t, c.Phone, got.Phone)
		require.Equal(t, *c.Note, *got.Note)
	}
	require.Equal(t, before, f.row(t, "c24"), "what is new enough is not written")

	report, err = f.contacts.Reencrypt(job("acme"), "acme", f, nil)
	require.NoError(t, err)
	require.Zero(t, report.Changed)
	for _, c := range contactIDs(20) {
		_, err := f.keys.Retire(job("acme"), dataScope(c), 2)
		require.NoError(t, err)
	}
	report, err = f.contacts.Scan(job("acme"), "acme", f, nil)
	require.NoError(t, err)
	require.True(t, report.OK(), "nothing is left under what was retired: %+v", report)
}

func TestReencryptPadsAnew(t *testing.T) {
	f := newFullTable(t, 3, encrypt.Options{})
	type padded struct {
		ID          string  `encrypt:",record"`
		Phone       string  `encrypt:"phone,pad=32"`
		PhoneSealed []byte  `encrypt:"phone,sealed"`
		Note        *string `encrypt:"note"`
		NoteSealed  []byte  `encrypt:"note,sealed"`
	}
	table, err := encrypt.NewTable[padded](f.keys, "contacts", nil)
	require.NoError(t, err)
	note := f.row(t, "c01").Sealed["note"]
	report, err := table.Reencrypt(job("acme"), "acme", f, nil)
	require.NoError(t, err)
	require.Equal(t, 3, report.Changed)
	r := f.row(t, "c01")
	require.Len(t, r.Sealed["phone"], encrypt.Overhead+32)
	require.Equal(t, note, r.Sealed["note"], "the other field stays as it is")
	got := &padded{ID: r.Record, PhoneSealed: r.Sealed["phone"], NoteSealed: r.Sealed["note"]}
	require.NoError(t, table.Open(job("acme"), "acme", got))
	require.Equal(t, "+7 912 345-67-89", got.Phone)
	report, err = f.contacts.Reencrypt(job("acme"), "acme", f, nil)
	require.NoError(t, err)
	require.Equal(t, 3, report.Changed, "and back")
}

// checkEdits returns an error if an edit between reading and writing is lost.
func checkEdits(t *testing.T, plant func(f *fullTable, h *hooked)) error {
	f := newFullTable(t, 5, encrypt.Options{})
	f.rotate(t, contactIDs(5)...)
	h := &hooked{Rows: f}
	edited := false
	h.before = func() {
		if !edited {
			edited = true
			c := page(4)[3]
			c.Phone = "edited"
			f.save(t, c)
		}
	}
	plant(f, h)
	report, err := f.contacts.Reencrypt(job("acme"), "acme", h, nil)
	require.NoError(t, err)
	got := asContact(f.row(t, "c03"))
	require.NoError(t, f.contacts.Open(job("acme"), "acme", got))
	if got.Phone != "edited" {
		return errors.New("the edit was lost")
	}
	require.Equal(t, 5, report.Rows)
	return nil
}

func TestReencryptLosesNoEdit(t *testing.T) {
	require.NoError(t, checkEdits(t, func(*fullTable, *hooked) {}))
	t.Run("planted fault: a swap that does not compare", func(t *testing.T) {
		require.Error(t, checkEdits(t, func(f *fullTable, h *hooked) {
			h.swap = func(changes []encrypt.Change) {
				for i := range changes {
					changes[i].Was = f.row(t, changes[i].Was.Record)
				}
			}
		}))
	})
}

// checkAllNew returns an error if Reencrypt leaves something under an old key.
func checkAllNew(t *testing.T, batch int, h *hooked, f *fullTable) error {
	_, err := f.contacts.Reencrypt(job("acme"), "acme", h, &encrypt.JobOptions{Batch: batch})
	require.NoError(t, err)
	for _, id := range contactIDs(30) {
		if version(f.row(t, id).Sealed["phone"]) != 2 {
			return fmt.Errorf("%s is still under the old key", id)
		}
	}
	return nil
}

func TestReencryptMissesNoBorder(t *testing.T) {
	for _, batch := range []int{1, 7, 10, 15, 29, 30, 31} {
		f := newFullTable(t, 30, encrypt.Options{})
		f.rotate(t, contactIDs(30)...)
		require.NoError(t, checkAllNew(t, batch, &hooked{Rows: f}, f), "batches of %d", batch)
	}
	t.Run("planted fault: the row behind a border is skipped", func(t *testing.T) {
		f := newFullTable(t, 30, encrypt.Options{})
		f.rotate(t, contactIDs(30)...)
		require.Error(t, checkAllNew(t, 10, &hooked{Rows: f, page: func(after string, rows []encrypt.Row) []encrypt.Row {
			if after != "" && len(rows) > 1 {
				return rows[1:]
			}
			return rows
		}}, f))
	})
}

func TestReencryptGoesOnAtItsCursor(t *testing.T) {
	f := newFullTable(t, 30, encrypt.Options{})
	f.rotate(t, contactIDs(30)...)
	stop := errors.New("enough")
	report, err := f.contacts.Reencrypt(job("acme"), "acme", f, &encrypt.JobOptions{Batch: 10, Progress: func(context.Context, encrypt.Report) error { return stop }})
	require.ErrorIs(t, err, stop)
	require.Equal(t, encrypt.Report{Cursor: "c09", Rows: 10, Changed: 10}, report)
	report, err = f.contacts.Reencrypt(job("acme"), "acme", f, &encrypt.JobOptions{Batch: 10, After: report.Cursor})
	require.NoError(t, err)
	require.Equal(t, encrypt.Report{Cursor: "c29", Rows: 20, Changed: 20}, report)

	ctx, cancel := context.WithCancel(job("acme"))
	_, err = f.contacts.Scan(ctx, "acme", f, &encrypt.JobOptions{Batch: 10, Progress: func(context.Context, encrypt.Report) error { cancel(); return nil }})
	require.ErrorIs(t, err, context.Canceled)
}

// A row that is always being changed does not hold up the others.
func TestReencryptGivesUpOnBusyRows(t *testing.T) {
	f := newFullTable(t, 5, encrypt.Options{})
	f.rotate(t, contactIDs(5)...)
	h := &hooked{Rows: f}
	h.before = func() {
		r := f.row(t, "c02")
		r.Sealed["note"] = append(r.Sealed["note"], 'x')
		f.Put("acme", r)
	}
	report, err := f.contacts.Reencrypt(job("acme"), "acme", h, nil)
	require.NoError(t, err)
	require.Equal(t, 5, report.Rows)
	require.Equal(t, 4, report.Changed)
	require.Equal(t, 1, report.Busy)
	require.Equal(t, "c02", report.Findings[0].Record)
}

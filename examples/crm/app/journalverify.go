package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/guard"
)

// verification is the newest run, which nobody needs to wait for: it goes on when the
// page is closed. A restart forgets it.
type verification struct {
	mu          sync.Mutex
	by          string
	began       time.Time // zero: there was none
	ended       time.Time // zero: it is under way
	done, total int64
	report      audit.Report
	failed      bool
}

// verifyView is what verification.html shows.
type verifyView struct {
	Running      bool
	Done, Total  int64
	By           string
	Began, Ended time.Time
	Verdict      *verdict
	Anchors      []anchorLine
}

// anchorLine says how what is kept outside does.
type anchorLine struct {
	Name    string
	Entries int64
	Kept    time.Time
	Failing bool
}

// verdict is the result of a verification in plain words.
type verdict struct {
	Class, Title, Text, Facts string
}

const verifyReason = "verify"

// openAnchor keeps checkpoints of the journal outside of the data, so that whoever can
// write the database cannot cut it off unnoticed. One that holds nothing would vouch from now
// on for what is left of a journal: that it was lost is somebody's to say.
func (a *App) openAnchor(ctx context.Context, entries audit.Store) (audit.Anchor, error) {
	path := a.cfg.Anchor
	if path == "" {
		path = filepath.Join(a.cfg.Keys, "journal.anchor")
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil { // nothing could be kept there
		return nil, fmt.Errorf("the folder for the checkpoints of the journal cannot be reached: nobody was let in; make or mount it, or name another file with -anchor (%w)", err)
	}
	anchor, err := audit.NewFileAnchor(path, a.vault.verifier)
	if err != nil {
		return nil, err
	}
	head, err := entries.Head(ctx)
	if err != nil {
		return nil, err
	}
	newest, _, err := anchor.Newest(ctx)
	if err == nil && head.Size == 0 {
		return anchor, a.mayBeginJournal(ctx, newest)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("the checkpoints of the journal in %s cannot be read, so that nobody knows whether the journal was cut off: nobody was let in; put the file back, or keep it elsewhere and start once with -new-anchor and the reason (%w)", path, err)
	case newest == nil && a.cfg.NewAnchor == "":
		return nil, fmt.Errorf("%s holds no checkpoint of the journal, which has %d entries: nobody was let in, as somebody may have removed it and cut the journal off; put the file back and press Verify, or start once with -new-anchor and the reason if you know where it went", path, head.Size)
	case newest != nil && a.cfg.NewAnchor != "":
		return nil, fmt.Errorf("%s holds checkpoints of the journal: start without -new-anchor, which is for one that was lost", path)
	}
	return anchor, nil
}

// mayBeginJournal refuses an empty journal where there was one: of a company that exists, or
// of which something outside holds a checkpoint.
func (a *App) mayBeginJournal(ctx context.Context, newest []byte) error {
	stage, err := a.vault.proven(ctx, a.db, stageSetting)
	if err != nil {
		return err
	}
	var kept audit.Checkpoint
	if newest != nil {
		if kept, err = audit.OpenCheckpoint(newest, a.vault.verifier); err != nil {
			return err
		}
	}
	if string(stage) == stageDone || kept.Size > 0 {
		return fmt.Errorf("the journal is empty, but the company in %s has one: nobody was let in; put back a backup of the data", a.db.name)
	}
	return nil
}

// firstKept has an anchor that holds nothing keep the journal's first checkpoint before the journal
// goes on: of what a crash left without one nobody could tell whether it was cut off.
func firstKept(ctx context.Context, anchor audit.Anchor, entries audit.Store) error {
	if newest, _, err := anchor.Newest(ctx); err != nil || newest != nil {
		return err
	}
	first, err := entries.Checkpoints(ctx, -1, 1)
	if err != nil || len(first) == 0 {
		return err
	}
	if err := anchor.Keep(ctx, first[0].Note); err != nil {
		return fmt.Errorf("the journal's first checkpoint cannot be kept outside: nobody was let in; make the file of -anchor one that can be written (%w)", err)
	}
	return nil
}

// recordNewAnchor keeps why what is outside vouches for the journal from now on only.
func (a *App) recordNewAnchor(ctx context.Context) error {
	if a.cfg.NewAnchor == "" {
		return nil
	}
	ctx = crmguard.System(ctx, tenant, "anchor")
	e := systemEvent(ctx, crmguard.Configure, crmguard.Resource{Tenant: tenant, Kind: "anchor"}, a.now())
	e.Reason = "new: " + a.cfg.NewAnchor
	return a.journal.Record(ctx, e)
}

// verified is what a request to verify the journal is about.
func verified(r *http.Request) (crmguard.Resource, error) {
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = verifyReason })
	return section("journal")(r)
}

// verifyJournal begins to recompute the whole journal, unless that is under way, and
// leads to the page that tells how far it is.
func (a *App) verifyJournal(w http.ResponseWriter, r *http.Request) error {
	if v := &a.verification; v.begin(subjectOf(r.Context()).ID, a.now()) {
		act := guard.RequestID(r.Context()) + "-verify"
		a.background.Go(func() { a.verify(act) })
	}
	http.Redirect(w, r, "/journal/verification", http.StatusSeeOther)
	return nil
}

func (v *verification) begin(by string, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.began.IsZero() && v.ended.IsZero() {
		return false
	}
	v.by, v.began, v.ended, v.done, v.total, v.failed = by, now, time.Time{}, 0, 0, false
	return true
}

// verify does it. What was found is an entry itself.
func (a *App) verify(act string) {
	v := &a.verification
	ctx := crmguard.System(a.jobs.cut, tenant, verifyReason)
	report, err := a.journal.Verify(ctx, a.vault.verifier, &audit.VerifyOptions{Clock: a.cfg.Clock, Progress: func(done, total int64) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.done, v.total = done, total
	}})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		a.log.ErrorContext(ctx, "the journal could not be verified", "error", err)
	} else {
		e := systemEvent(ctx, crmguard.Access, sectionOf("journal"), a.now())
		e.ID, e.Subject.OnBehalfOf, e.Reason = act, v.by, verifyReason+":"+strings.ReplaceAll(report.Verdict.String(), " ", "-")
		if err := a.recorder.Record(ctx, e); err != nil {
			a.log.ErrorContext(ctx, "how a verification of the journal ended was not recorded", "verdict", report.Verdict, "error", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report, v.failed, v.ended = report, err != nil, a.now()
}

// verifyReload is how often the page loads itself again while the journal is verified.
const verifyReload = time.Second

// verificationPage shows how far a verification is, or what it found. That somebody
// asked for it is in the journal already.
func (a *App) verificationPage(w http.ResponseWriter, r *http.Request) {
	err := a.guard.Check(r.Context(), crmguard.Access, sectionOf("journal"))
	if err == nil {
		view := a.verification.view()
		for _, s := range a.journal.Anchors() {
			line := anchorLine{Name: s.Name, Entries: s.Size, Kept: s.Kept, Failing: s.Err != nil}
			view.Anchors = append(view.Anchors, line)
		}
		p := a.page(r, "Verification", false, view)
		if view.Running {
			p.Reload, p.ReloadFrom = int(verifyReload.Seconds()), "/journal/verification"
		}
		err = a.render(w, http.StatusOK, "verification", p)
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

func (v *verification) view() verifyView {
	v.mu.Lock()
	defer v.mu.Unlock()
	view := verifyView{By: v.by, Began: v.began, Ended: v.ended, Done: v.done, Total: v.total, Running: !v.began.IsZero() && v.ended.IsZero()}
	switch {
	case v.began.IsZero() || view.Running:
	case v.failed:
		view.Verdict = &verdict{Class: "bad", Title: "The journal could not be read", Text: "The log of the CRM says why. Nothing is known about the journal; try again."}
	default:
		view.Verdict = explain(v.report)
	}
	return view
}

// explain says what a report means to somebody who does not know how it is made.
func explain(report audit.Report) *verdict {
	v := &verdict{Class: "bad"}
	if report.Detail != "" {
		v.Text = sentence(report.Detail)
	}
	switch report.Verdict {
	case audit.Intact:
		v.Class, v.Title = "good", "The journal is intact"
		v.Text = "Every entry is as it was written, and what is kept outside of the data says so too."
	case audit.Unanchored:
		// No green without something outside: who can write the database can cut
		// checkpoints off and write the entries after them anew.
		v.Class, v.Title = "warn", "Every entry is as it was written, as far as this machine can tell"
		v.Text = "The entries fit together and contradict no signature that is here. Nothing outside this machine vouches for them: keep a copy of the newest checkpoint elsewhere."
	case audit.AnchorStale:
		v.Class, v.Title = "warn", "Intact, but last vouched for long ago"
		v.Text = "Every entry is as it was written, but what is kept outside of the data is old or empty. Entries may have been cut off since; see that the file of the anchor can be written."
	case audit.Pruned:
		v.Class, v.Title = "good", "Intact; old entries were removed by retention"
		v.Text = fmt.Sprintf("Every entry from %d on is as it was written. That those before it were removed is signed.", report.Pruned)
	case audit.Broken:
		v.Title = fmt.Sprintf("Entry %d was changed or damaged", report.At)
		v.Text = fmt.Sprintf("%s The %d entries before it are as they were written. Save a copy of the data folder before anything else.", v.Text, report.Entries)
	case audit.Truncated:
		v.Title = fmt.Sprintf("Entries from %d on are missing", report.At)
		v.Text = "They were signed, and are gone. Somebody cut them off, or put an older copy of the data back. Save a copy of the data folder before anything else."
	case audit.Forked:
		v.Title = "This is not the journal that was signed"
	case audit.Restored:
		v.Title = "The journal was restored from elsewhere"
	default:
		v.Title = "The journal cannot be verified"
	}
	v.Facts = fmt.Sprintf("%d entries checked, %d of them signed, %d of them vouched for outside. Log %s.", report.Entries, report.Signed, report.Pinned, report.Log)
	return v
}

// proofFile is the name under which a proof is kept.
func proofFile(seq int64) string { return fmt.Sprintf("entry-%d.tlog-proof", seq) }

// Codes of downloads that wait for a signature, and of those of which a journal that does
// not verify keeps people.
const (
	unsignedProblem   = "unsigned"
	unverifiedProblem = "unverified"
)

func unsigned(detail string) error {
	return &guard.Problem{Status: http.StatusConflict, Title: "Not signed yet", Code: unsignedProblem, Detail: detail}
}

// proveEntry sends the file that proves an entry to whoever has the public key.
func (a *App) proveEntry(w http.ResponseWriter, r *http.Request) error {
	e, err := a.entryAt(r.Context(), r.PathValue("entry"))
	if err != nil {
		return err
	}
	proof, err := a.journal.Prove(r.Context(), e.Seq)
	if errors.Is(err, audit.ErrUnsigned) {
		return unsigned("The entry is in the journal, but so new that no signature covers it. Try again in a minute.")
	}
	if err != nil {
		return err
	}
	sendFile(w, "text/plain; charset=utf-8", proofFile(e.Seq), proof)
	return nil
}

// entryAt reads one entry by its number, and sees that it is as it was signed, unless it is too
// new for that.
func (a *App) entryAt(ctx context.Context, number string) (audit.Entry, error) {
	seq, err := readNumber(number)
	if err != nil {
		return audit.Entry{}, err
	}
	found, err := a.journal.Find(ctx, audit.Query{Tenant: tenant, Before: seq + 1, Limit: 1})
	if err != nil {
		return audit.Entry{}, err
	}
	if !slices.Contains(found.Damaged, seq) {
		if len(found.Entries) == 0 || found.Entries[0].Seq != seq {
			return audit.Entry{}, guard.ErrNotFound
		}
		_, err := a.journal.Prove(ctx, seq)
		if _, broken := errors.AsType[*audit.BrokenError](err); !broken {
			return found.Entries[0], nil
		}
	}
	return audit.Entry{}, &guard.Problem{Status: http.StatusInternalServerError, Title: fmt.Sprintf("Entry %d was changed or damaged", seq), Code: unverifiedProblem,
		Detail: "It is not what was signed, so it is not shown. Open the journal and press Verify, which says more; tell the administrator before anything else is done."}
}

package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
)

// The two long tasks of the keys page. They run in the background, whoever closes
// the page meanwhile, one at a time, and go on after a restart.
const (
	turnJob      = "turn"
	reencryptJob = "reencrypt"
)

// keyJob is one run of a task, as it is stored.
type keyJob struct {
	Name   string    `json:"name"`
	ID     string    `json:"id"` // of its entries in the journal
	By     string    `json:"by"`
	Began  time.Time `json:"began"`
	Ended  time.Time `json:"ended,omitzero"`
	Failed bool      `json:"failed,omitempty"`

	Step   string `json:"step,omitempty"`
	Cursor string `json:"cursor,omitempty"` // of the step: what is done
	Done   int    `json:"done,omitempty"`   // in the step
	All    int    `json:"all,omitempty"`    // in the step; 0: not known

	Keys    int       `json:"keys,omitempty"`    // wrapped anew, or made
	Changed int       `json:"changed,omitempty"` // values and files sealed anew
	Left    int       `json:"left,omitempty"`    // that did not open
	Damaged bool      `json:"damaged,omitempty"` // the keys of some clients, which got no new one
	Gone    time.Time `json:"gone,omitzero"`     // when the old KEK is gone everywhere
}

func (j *keyJob) running() bool { return j != nil && j.Ended.IsZero() }

// keyJobs are the newest run of each task.
type keyJobs struct {
	mu     sync.Mutex
	newest map[string]keyJob
	cut    context.Context // ends when the CRM stops
}

// errBusy says that one of the tasks is under way.
var errBusy = &guard.Problem{Status: http.StatusConflict, Title: "One task at a time", Code: "busy",
	Detail: "Another task with the keys is under way, so this one was not begun. Wait until it has ended: the keys page says so."}

func jobSetting(name string) string { return "job-" + name }

// loadJobs reads the newest runs, and refuses keys from before the last turn.
func (a *App) loadJobs(ctx context.Context) error {
	a.jobs.newest = map[string]keyJob{}
	for _, name := range []string{turnJob, reencryptJob} {
		// The key of its MAC is there from the first start on, so that the oldest copy of
		// the key store tells what is genuine from what somebody made up.
		if _, err := a.vault.keys.MAC(ctx, settingPlace(jobSetting(name)), nil); err != nil {
			return err
		}
		text, err := a.vault.proven(ctx, a.db, jobSetting(name))
		var job keyJob
		if err == nil && text != nil {
			err = json.Unmarshal(text, &job)
		}
		if err != nil {
			a.log.ErrorContext(ctx, "what became of a task with the keys was changed past the CRM", "task", name, "error", err)
			continue
		}
		if job.Name == name {
			a.jobs.newest[name] = job
		}
	}
	return a.vault.current(ctx, a.db, a.jobs.newest[turnJob])
}

// resumeJobs goes on with a task that was cut off.
func (a *App) resumeJobs(ctx context.Context) {
	for _, job := range a.jobs.newest {
		if job.running() {
			a.log.InfoContext(ctx, "a task with the keys goes on", "task", job.Name)
			a.background.Go(func() { a.runJob(job) })
			return // there is one at a time
		}
	}
}

// job returns the newest run of a task, nil if there was none.
func (j *keyJobs) job(name string) *keyJob {
	j.mu.Lock()
	defer j.mu.Unlock()
	if job, ok := j.newest[name]; ok {
		return &job
	}
	return nil
}

// busy says whether a task is under way.
func (j *keyJobs) busy() bool {
	return j.job(turnJob).running() || j.job(reencryptJob).running()
}

// startJob begins a task for whoever asks.
func (a *App) startJob(ctx context.Context, name string) error {
	a.jobs.mu.Lock()
	defer a.jobs.mu.Unlock()
	for _, job := range a.jobs.newest {
		if job.running() {
			return errBusy
		}
	}
	job := keyJob{Name: name, ID: guard.RequestID(ctx) + "-job", By: subjectOf(ctx).ID, Began: a.now()}
	if err := a.storeJob(ctx, job); err != nil {
		return err
	}
	a.jobs.newest[name] = job
	a.background.Go(func() { a.runJob(job) })
	return nil
}

func (a *App) storeJob(ctx context.Context, job keyJob) error {
	text, err := json.Marshal(job)
	if err == nil {
		err = a.vault.prove(ctx, a.db, jobSetting(job.Name), text)
	}
	if err != nil {
		return fmt.Errorf("remember a task with the keys: %w", err)
	}
	return nil
}

// show has the page show how far a task is; keep has a restart go on from there.
func (a *App) show(job keyJob) {
	a.jobs.mu.Lock()
	defer a.jobs.mu.Unlock()
	a.jobs.newest[job.Name] = job
}

func (a *App) keep(ctx context.Context, job keyJob) error {
	a.show(job)
	return a.storeJob(ctx, job)
}

// runJob does a task to its end. One that the end of the program cuts off keeps its
// state and has no outcome in the journal until it has gone on.
func (a *App) runJob(job keyJob) {
	ctx := crmguard.System(a.jobs.cut, tenant, job.Name)
	e := systemEvent(ctx, crmguard.Configure, crmguard.Resource{Tenant: tenant, Kind: keysKind}, job.Began)
	e.ID, e.Reason, e.Subject.OnBehalfOf, e.Outcome = job.ID, job.Name, job.By, crmguard.Attempted
	err := a.recorder.Record(ctx, e)
	if err == nil {
		err = a.doJob(ctx, &job)
	}
	if ctx.Err() != nil {
		return
	}
	e.Outcome, e.Count, e.Time = crmguard.Done, job.Keys, a.now()
	if err != nil {
		a.log.ErrorContext(ctx, "a task with the keys failed", "task", job.Name, "error", err)
		e.Outcome, job.Failed = crmguard.Failed, true
	}
	job.Ended = a.now()
	if err := errors.Join(a.recorder.Record(ctx, e), a.keep(ctx, job)); err != nil {
		a.log.ErrorContext(ctx, "how a task with the keys ended was not recorded", "task", job.Name, "error", err)
	}
}

func (a *App) doJob(ctx context.Context, job *keyJob) error {
	if job.Name == turnJob {
		return a.turn(ctx, job)
	}
	return a.reencrypt(ctx, job)
}

// turn replaces the key-encryption key.
func (a *App) turn(ctx context.Context, job *keyJob) error {
	turned, err := a.vault.keys.Turn(ctx, func(p encrypt.TurnProgress) {
		job.Step, job.Done, job.All = p.Step, p.Keys, p.AllKeys
		a.show(*job)
	})
	job.Keys, job.Gone = turned.Keys, turned.Gone
	return err
}

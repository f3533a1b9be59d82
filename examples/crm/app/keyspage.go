package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/guard"
)

// keysKind is what the rights to turn and reencrypt are about.
const keysKind = "keys"

// What the receipts of erasures rest on: see README.md.
const (
	backupRetention = 30 * 24 * time.Hour
	indexLife       = 90 * 24 * time.Hour
)

// keysView is what keys.html shows.
type keysView struct {
	May         bool // turn and reencrypt
	MayReceipts bool // check receipts
	Busy        bool
	Lines       []keyLine

	Closing, Destroyed int64
	Turn, Reencrypt    *jobView
}

// keyLine is one line of the table of keys.
type keyLine struct {
	What, Why string
	Keys      int64
	Made      string // when the oldest of them was made, and how long ago
	Due       string // how or when they are replaced
	Late      bool   // and they should have been
}

// jobView is a run of a task in words.
type jobView struct {
	keyJob
	Running bool
	Class   string
	Title   string
	Text    string
}

func (a *App) keysPage(w http.ResponseWriter, r *http.Request) error {
	return a.showKeys(w, r)
}

// liveKeys shows the page while a task is under way. That somebody looks was recorded
// when they opened the page.
func (a *App) liveKeys(w http.ResponseWriter, r *http.Request) {
	err := a.guard.Check(r.Context(), crmguard.Access, sectionOf("keys"))
	if err == nil && !a.jobs.busy() {
		http.Redirect(w, r, "/keys?ended", http.StatusSeeOther)
		return
	}
	if err == nil {
		err = a.showKeys(w, r)
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

// keysReload is how often the page loads itself again while a task is under way.
const keysReload = 2 * time.Second

func (a *App) showKeys(w http.ResponseWriter, r *http.Request) error {
	view := keysView{
		May: a.may(r, crmguard.Configure, crmguard.Resource{Tenant: tenant, Kind: keysKind}), Busy: a.jobs.busy(),
		MayReceipts: a.may(r, crmguard.Access, receipts),
		Turn:        describeTurn(a.jobs.job(turnJob), a.zone()), Reencrypt: describeReencrypt(a.jobs.job(reencryptJob)),
	}
	if err := a.countKeys(r.Context(), &view); err != nil {
		return err
	}
	p := a.page(r, "Keys", false, view)
	if view.Busy {
		p.Reload, p.ReloadFrom = int(keysReload.Seconds()), "/keys/live"
	}
	return a.render(w, http.StatusOK, "keys", p)
}

// keysOf is what a request to begin a task is about.
func keysOf(name string) guard.Loader {
	return func(r *http.Request) (crmguard.Resource, error) {
		guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = name + ":begin" })
		return crmguard.Resource{Tenant: tenant, Kind: keysKind}, nil
	}
}

// begin starts a task and leads back to the page.
func (a *App) begin(name string) guard.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := a.startJob(r.Context(), name); err != nil {
			return err
		}
		http.Redirect(w, r, "/keys", http.StatusSeeOther)
		return nil
	}
}

// summary counts the keys. It reads none: for that there is a connection of its own
// that may only read.
func (v *vault) summary(ctx context.Context) (list []encryptsql.Summary, err error) {
	path := (&url.URL{Path: filepath.Join(v.dir, "keys.db")}).EscapedPath()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, fmt.Errorf("count the keys: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return encryptsql.Summarize(ctx, db, nil)
}

// countKeys fills in which keys there are and how old they are.
func (a *App) countKeys(ctx context.Context, view *keysView) error {
	list, err := a.vault.summary(ctx)
	if err != nil {
		return err
	}
	var kek, keyset, clients, older, index, mac, own keyCount
	for _, s := range list {
		switch {
		case s.Purpose == encrypt.KEKCheck:
			kek = keyCount{1, s.Newest} // of several, the last one counts: the others go when a turn has ended
		case s.Purpose == encrypt.TenantKeyset:
			keyset = keyCount{1, s.Newest}
		case s.Purpose == encrypt.DataKey && s.State == encrypt.Closing:
			view.Closing += ifFirst(s)
		case s.Purpose == encrypt.DataKey && s.State == encrypt.Destroyed:
			view.Destroyed += ifFirst(s)
		case s.Purpose == encrypt.DataKey && s.Named && s.Version == 1:
			clients.add(s)
		case s.Purpose == encrypt.DataKey && s.Named:
			older.add(s)
		case s.Purpose == encrypt.DataKey:
			own.add(s)
		case s.Purpose == encrypt.IndexKey:
			index.add(s)
		case s.Purpose == encrypt.MACKey:
			mac.add(s)
		}
	}
	now, zone := a.now(), a.zone()
	view.Lines = []keyLine{
		{What: "Key-encryption key", Why: "in its own file; wraps the company's", Keys: kek.keys, Made: since(kek.oldest, now, zone), Due: "by a turn"},
		{What: "Company", Why: "wraps all keys below", Keys: keyset.keys, Made: since(keyset.oldest, now, zone), Due: "by a turn"},
		{What: "Clients", Why: "one each, for what is sealed of them", Keys: clients.keys, Made: since(clients.oldest, now, zone), Due: "by reencryption"},
	}
	if older.keys > 0 {
		view.Lines = append(view.Lines, keyLine{What: "Clients, later versions", Why: "the newest of a client seals, the others still open", Keys: older.keys, Made: since(older.oldest, now, zone), Due: "by reencryption"})
	}
	search := keyLine{What: "Search", Why: "for exact search, and to know imported rows again", Keys: index.keys, Made: since(index.oldest, now, zone), Due: "by itself"}
	if due := index.oldest.Add(indexLife); index.keys > 0 {
		search.Due, search.Late = "by itself, on "+day(due, zone), now.After(due.Add(2*upkeepEvery))
	}
	view.Lines = append(view.Lines, search,
		keyLine{What: "The company's own data", Why: "passwords, apps, settings", Keys: own.keys, Made: since(own.oldest, now, zone), Due: "not replaced"},
		keyLine{What: "Signatures of rows", Why: "sessions, rules, receipts: they hold as long as their key", Keys: mac.keys, Made: since(mac.oldest, now, zone), Due: "not replaced"},
	)
	return nil
}

type keyCount struct {
	keys   int64
	oldest time.Time
}

func (c *keyCount) add(s encryptsql.Summary) {
	c.keys += s.Keys
	if c.oldest.IsZero() || s.Oldest.Before(c.oldest) {
		c.oldest = s.Oldest
	}
}

// ifFirst counts clients, not the versions of their keys.
func ifFirst(s encryptsql.Summary) int64 {
	if s.Version > 1 {
		return 0
	}
	return s.Keys
}

func day(t time.Time, zone *time.Location) string { return t.In(zone).Format(time.DateOnly) }

func moment(t time.Time, zone *time.Location) string { return t.In(zone).Format(time.DateTime) }

func since(made, now time.Time, zone *time.Location) string {
	if made.IsZero() {
		return ""
	}
	days := int(now.Sub(made) / (24 * time.Hour))
	if days == 0 {
		return day(made, zone) + ", today"
	}
	return day(made, zone) + ", " + plural(days, "day") + " ago"
}

// What tasks are called, before the name of the step.
var taskNames = map[string]string{turnJob: "Turn: ", reencryptJob: "Reencrypt: "}

// What their steps are called.
var stepNames = map[string]string{
	"":                     "beginning",
	encrypt.TurnWrapping:   "wrapping keys anew",
	encrypt.TurnWaiting:    "waiting until nothing is wrapped under the old key any more",
	encrypt.TurnDestroying: "destroying the old key",
	stepKeys:               "making a new key for each client",
	stepContacts:           "sealing contacts anew",
	stepTitles:             "sealing the names of attachments anew",
	stepFiles:              "encrypting attachments anew",
}

func describeTurn(job *keyJob, zone *time.Location) *jobView {
	view := describeJob(job)
	if view == nil || view.Running {
		return view
	}
	if job.Failed {
		view.Title, view.Text = "The last turn failed", "Nothing was lost: all keys work as before. The log says why; begin it again when that is mended."
		return view
	}
	view.Title = "The keys were turned"
	view.Text = plural(job.Keys, "key") + " wrapped anew. The old key-encryption key is gone since " + moment(job.Gone, zone) +
		": copies of the keys folder from before open nothing any more, once the old file is gone from your backups too. Make a new backup of the keys folder now."
	return view
}

func describeReencrypt(job *keyJob) *jobView {
	view := describeJob(job)
	if view == nil || view.Running {
		return view
	}
	if job.Failed {
		view.Title, view.Text = "The last reencryption failed", "Nothing was lost: what was sealed anew opens, and what was not does, too. The log says why; begin it again when that is mended."
		return view
	}
	view.Title = "The clients were reencrypted"
	view.Text = plural(job.Keys, "new key") + ", and " + grouped(job.Changed) + " rows and files sealed anew."
	if job.Damaged {
		view.Class = "warn"
		view.Text += " The keys of some clients are damaged, and these got no new one: the log names them."
	}
	if job.Left > 0 {
		view.Class = "warn"
		view.Text += " " + plural(job.Left, "value") + " did not open and stayed as they were: the log names them."
	}
	return view
}

// describeJob says what both have in common.
func describeJob(job *keyJob) *jobView {
	switch {
	case job == nil:
		return nil
	case job.running():
		if job.All > 0 { // rows that came meanwhile are done, too
			job.All = max(job.All, job.Done)
		}
		return &jobView{keyJob: *job, Running: true, Title: taskNames[job.Name] + stepNames[job.Step]}
	case job.Failed:
		return &jobView{keyJob: *job, Class: "bad"}
	}
	return &jobView{keyJob: *job, Class: "good"}
}

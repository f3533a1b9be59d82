package app

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/quota"
)

// normsForm is the part of settings.html about norms. They hold for everybody:
// there is no norm of one person that somebody could raise for themselves.
type normsForm struct {
	Version   int64
	Zone      string
	ZoneError string
	Lines     []*normLine
	Conflict  bool
	Problems  bool
	May       bool
}

type normLine struct {
	ID         int
	What       string
	Soft, Hard string
	Error      string
	norm       quota.Norm
}

// normsForm shows norms.
func (a *App) normsForm(rules normRules) *normsForm {
	form := &normsForm{Version: rules.Version, Zone: rules.Zone}
	for i, n := range rules.Norms {
		line := &normLine{ID: i, What: n.Counter(), Hard: strconv.Itoa(n.Hard), norm: n}
		if n.Soft > 0 {
			line.Soft = strconv.Itoa(n.Soft)
		}
		if noun, ok := normNouns[line.What]; ok {
			line.What = strings.ToUpper(noun[:1]) + noun[1:]
		}
		form.Lines = append(form.Lines, line)
	}
	return form
}

// fields are the names of the form's fields.
func (f *normsForm) fields() []string {
	names := []string{"zone"}
	for _, line := range f.Lines {
		names = append(names, line.soft(), line.hard())
	}
	return names
}

func (l *normLine) soft() string { return "soft-" + strconv.Itoa(l.ID) }
func (l *normLine) hard() string { return "hard-" + strconv.Itoa(l.ID) }

// typed takes over what was typed, and returns it as the next version.
func (f *normsForm) typed(posted url.Values) normRules {
	rules := normRules{Version: f.Version + 1}
	typedOr(posted, "zone", &f.Zone)
	rules.Zone = strings.TrimSpace(f.Zone)
	if _, err := quota.OneZone(rules.Zone); err != nil {
		f.Problems, f.ZoneError = true, "There is no such time zone. Names are like Europe/Moscow."
	}
	for _, line := range f.Lines {
		typedOr(posted, line.soft(), &line.Soft)
		typedOr(posted, line.hard(), &line.Hard)
		next := line.norm
		var softErr, hardErr error
		if next.Soft = 0; strings.TrimSpace(line.Soft) != "" {
			next.Soft, softErr = strconv.Atoi(strings.TrimSpace(line.Soft))
		}
		next.Hard, hardErr = strconv.Atoi(strings.TrimSpace(line.Hard))
		switch {
		case softErr != nil || hardErr != nil || next.Hard < 1 || next.Hard > quota.MaxHard || next.Soft < 0:
			line.Error = "Whole numbers up to " + grouped(quota.MaxHard) + "; the first may be empty."
		case next.Soft >= next.Hard:
			line.Error = "The norm must be more than the number after which somebody is told."
		}
		f.Problems = f.Problems || line.Error != ""
		rules.Norms = append(rules.Norms, next)
	}
	return rules
}

// changeNorms puts the norms of the form in force, for everybody.
func (a *App) changeNorms(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	a.settling.Lock()
	defer a.settling.Unlock()
	was := *a.norms.rules.Load()
	form := a.normsForm(was)
	var err error
	if form.Conflict, err = stale(r.PostForm, was.Version, form.fields()); err != nil {
		return err
	}
	next := form.typed(r.PostForm)
	view := &settingsView{Norms: form}
	if form.Conflict {
		return notSaved(r, http.StatusConflict, view)
	}
	if form.Problems {
		return notSaved(r, http.StatusUnprocessableEntity, view)
	}
	guard.Describe(ctx, func(e *guard.Details) {
		e.Reason, e.Fields = "version:"+strconv.FormatInt(next.Version, 10), changedNorms(was, next)
	})
	err = guard.Settle(ctx, func(done crmguard.Event) error { return a.storeNorms(ctx, next, done) })
	if errors.Is(err, errSettingChanged) {
		form.Conflict = true
		return notSaved(r, http.StatusConflict, view)
	}
	if err != nil {
		return err
	}
	return a.showSettings(w, r, http.StatusOK, &settingsView{Saved: "norms", Notice: &notice{"The norms are in force", "They hold for everybody, from the next click on. What was counted today stays counted."}})
}

// storeNorms stores the next version over the one in force, with its MAC and its
// entry in the journal in one transaction, and then puts it in force.
func (a *App) storeNorms(ctx context.Context, next normRules, done crmguard.Event) error {
	if _, err := a.norms.make(next); err != nil {
		return err
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	was, err := a.vault.proven(ctx, a.db, normsSetting)
	if err != nil {
		return err
	}
	mac, err := a.vault.keys.MAC(ctx, settingPlace(normsSetting), text)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(text)
	done.Policy = fmt.Sprintf("norms %d %s", next.Version, hex.EncodeToString(digest[:]))
	err = a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error {
		if err := swapSetting(ctx, tx, normsSetting, was, text); err != nil {
			return err
		}
		return putSetting(ctx, tx, normsSetting+"-mac", mac)
	})
	if err != nil {
		return err
	}
	return a.norms.use(next)
}

// changedNorms names what a change of the norms is about.
func changedNorms(was, next normRules) []string {
	var changed []string
	if was.Zone != next.Zone {
		changed = append(changed, "zone")
	}
	for _, n := range next.Norms {
		if !slices.Contains(was.Norms, n) {
			changed = append(changed, n.Counter())
		}
	}
	return changed
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/encrypt"
)

// keysReport is all that keys list tells.
type keysReport struct {
	Keys     []keyCount   `json:"keys"`
	KEK      kekState     `json:"kek"`
	Erasures erasureState `json:"erasures"`
	Due      []string     `json:"due"` // what somebody should do
}

// kekState is what the key store knows of the key-encryption key.
type kekState struct {
	Generation   uint32    `json:"generation"` // grows with each turn; 0: the store has no keys yet
	Since        time.Time `json:"since,omitzero"`
	TurnedAt     time.Time `json:"turned_at,omitzero"` // when the last turn ended
	OldGone      time.Time `json:"old_gone,omitzero"`  // the older keys, then
	TurningSince time.Time `json:"turning_since,omitzero"`
}

type erasureState struct {
	Closing       int       `json:"closing"`
	OldestClosing time.Time `json:"oldest_closing,omitzero"`
	Destroyed     int64     `json:"destroyed"`
}

// turnNote is what the record of the KEK keeps of a turn.
type turnNote struct {
	Generation uint32    `json:"generation"`
	BeganAt    time.Time `json:"began_at"`
	EndedAt    time.Time `json:"ended_at"`
	Gone       time.Time `json:"gone"`
}

func readKEKState(ctx context.Context, store encrypt.Store) (kekState, error) {
	checks, err := store.Load(ctx, []encrypt.Scope{{Purpose: encrypt.KEKCheck}})
	if err != nil || len(checks) == 0 {
		return kekState{}, err
	}
	k := kekState{Generation: 1, Since: checks[0].CreatedAt}
	note := checks[len(checks)-1].Note
	if len(note) == 0 {
		return k, nil
	}
	var turns []turnNote
	if err := json.Unmarshal(note, &turns); err != nil {
		return k, errors.New("the history of the key-encryption key is damaged")
	}
	for _, t := range turns {
		if t.EndedAt.IsZero() {
			k.TurningSince = t.BeganAt
		} else {
			k.Generation, k.Since, k.TurnedAt, k.OldGone = t.Generation, t.BeganAt, t.EndedAt, t.Gone
		}
	}
	return k, nil
}

func readErasures(ctx context.Context, store encrypt.Store, lines []keyCount) (e erasureState, err error) {
	_, closing, err := store.Closing(ctx)
	if err != nil {
		return e, err
	}
	e.Closing = len(closing)
	for _, r := range closing {
		if e.OldestClosing.IsZero() || r.ClosedAt.Before(e.OldestClosing) {
			e.OldestClosing = r.ClosedAt
		}
	}
	for _, l := range lines {
		if l.Purpose == "client" && l.State == encrypt.Destroyed.String() {
			e.Destroyed += l.Keys
		}
	}
	return e, nil
}

const (
	kekLife = 365 * 24 * time.Hour

	// patience is how long a host may take that finishes erasures every minute, and how long
	// the longest turn hardly takes.
	patience = 10 * time.Minute
)

// due is what should have been done by now.
func (r *keysReport) due(now time.Time, indexLife time.Duration) []string {
	due := []string{}
	if t := r.Erasures.OldestClosing; !t.IsZero() && now.Sub(t) > encrypt.ClosingTime+patience {
		due = append(due, fmt.Sprintf("an erasure was ordered at %s, and the key is still there: the CRM should call FinishErasures every minute; where it does not run, call crmguard keys erase -finish", stamp(t)))
	}
	if t := r.KEK.TurningSince; !t.IsZero() && now.Sub(t) > patience {
		due = append(due, fmt.Sprintf("a turn that began at %s has not ended: unless somebody is at it, call crmguard keys turn", stamp(t)))
	}
	if t := r.KEK.Since; !t.IsZero() && now.Sub(t) > kekLife {
		due = append(due, fmt.Sprintf("the key-encryption key is from %s, more than a year old: call crmguard keys turn", t.Format(time.DateOnly)))
	}
	old := slices.ContainsFunc(r.Keys, func(l keyCount) bool { return l.Purpose == "index" && now.Sub(l.Oldest) > indexLife })
	if old {
		due = append(due, fmt.Sprintf("keys of indexes are older than %d days: the CRM should call MaintainIndex of each table every hour; pseudonyms that it asks for itself have crmguard keys rotate", int(indexLife/(24*time.Hour))))
	}
	return due
}

func (c *call) printState(r *keysReport, now time.Time) {
	ago := func(t time.Time) string {
		return fmt.Sprintf("%s (%s ago)", t.Format(time.DateOnly), count(int(now.Sub(t)/(24*time.Hour)), "day"))
	}
	if k := r.KEK; k.TurnedAt.IsZero() {
		fmt.Fprintf(c.out, "\nkey-encryption key: generation %d, in use since %s, never turned\n", k.Generation, ago(k.Since))
	} else {
		fmt.Fprintf(c.out, "\nkey-encryption key: generation %d, last turned %s, older keys gone at %s\n", k.Generation, ago(k.TurnedAt), stamp(k.OldGone))
	}
	if t := r.KEK.TurningSince; !t.IsZero() {
		fmt.Fprintf(c.out, "a turn began at %s and has not ended\n", stamp(t))
	}
	fmt.Fprintf(c.out, "erasures of clients: %d closing, %d destroyed\n", r.Erasures.Closing, r.Erasures.Destroyed)
	for _, d := range r.Due {
		fmt.Fprintln(c.out, "Due: "+d)
	}
}

package quota

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

// Alert says that somebody has passed a threshold.
type Alert struct {
	Norm    Norm
	Level   Level
	Person  string           // whose norm it is: Subject, or for whom Subject acts
	Subject crmguard.Subject // who acted
	Count   int              // with the record that passed it, which was refused if Level is Hard
	Day     Day
	Time    time.Time
}

// Event returns the alert for the journal: Done for a soft norm, because the act
// went on, and Denied for a hard one. One alert has one ID, whenever it is made, so
// that recording it twice keeps one entry.
func (a Alert) Event() crmguard.Event {
	e := crmguard.Event{
		Time: a.Time, Subject: a.Subject, Action: a.Norm.Action,
		Resource: crmguard.Resource{Tenant: a.Subject.Tenant, Kind: a.Norm.Kind},
		Outcome:  crmguard.Done, Reason: "quota:" + a.Level.String() + "-norm", Count: a.Count,
	}
	if a.Level == Hard {
		e.Outcome = crmguard.Denied
	}
	if a.Norm.Of == Attempts {
		e.Action, e.Resource.Kind = crmguard.Access, AttemptsCounter
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %s %s", a.Subject.Tenant, a.Person, a.Norm.Counter(), a.Day, a.Level))
	e.ID = base64.RawURLEncoding.EncodeToString(digest[:18])
	return e
}

// tell tells of thresholds. One that could not be told is armed again.
func (q *Quota) tell(ctx context.Context, s *crmguard.Subject, t *Taking, fired []Fired, now time.Time) error {
	if q.alert == nil {
		return nil
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	var errs []error
	for i, f := range fired {
		a := Alert{Norm: q.norm(f.Counter), Level: f.Level, Person: t.Person, Subject: *s, Count: f.Count, Day: t.Day, Time: now}
		err := q.alert(ctx, a)
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("quota: alert: %w", err))
		silent := *t
		silent.Items = nil
		if err := q.store.Return(ctx, silent, fired[i:i+1]); err != nil {
			errs = append(errs, fmt.Errorf("quota: arm an alert again: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (q *Quota) norm(counter string) Norm {
	for _, n := range q.norms {
		if n.Counter() == counter {
			return n
		}
	}
	return Norm{} // cannot happen: limits are made of norms
}

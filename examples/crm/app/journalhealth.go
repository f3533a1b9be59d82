package app

import (
	"fmt"
	"time"

	"github.com/crmguard/crmguard/audit"
)

// journalHealth is what pages say of the way into the journal.
type journalHealth struct {
	OK    bool
	Title string
	Since time.Time // zero: not known, or as long as the CRM runs
	Lines []string
}

// health puts the state of the recorder into words.
func health(s audit.FailoverStatus) journalHealth {
	h := journalHealth{OK: s.OK(), Since: s.Since, Title: "The journal takes all entries"}
	add := func(format string, args ...any) { h.Lines = append(h.Lines, fmt.Sprintf(format, args...)) }
	switch {
	case s.Down:
		h.Title = "The journal is down"
		add("Nobody changes, reveals, calls, downloads or forgets anything until it works again. People still sign in and look, and access is ended.")
	case !h.OK:
		h.Title = "The journal works again, and catches up"
	}
	if s.Spooled > 0 {
		add("%s on the disk of this machine, sealed (%s KiB of %s).", waits(s.Spooled), grouped(int((s.SpoolBytes+1023)/1024)), grouped(int(s.SpoolLimit/1024)))
	}
	if s.Dropped > 0 {
		add("Looks at lists and cards that were counted, and not kept one by one: %s. The journal will say whose.", grouped(s.Dropped))
	}
	if s.SpoolErr != nil {
		add("The disk on which entries wait takes no more. Repair it and start the CRM again.")
	}
	if s.Left > 0 {
		add("Pieces on that disk that are no entries, or damaged: %s. Look at the files that end in .left.", grouped(s.Left))
	}
	return h
}

func waits(n int) string {
	if n == 1 {
		return "1 entry waits"
	}
	return fmt.Sprintf("%s entries wait", grouped(n))
}

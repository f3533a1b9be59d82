package app

import (
	"fmt"
	"strings"
	"time"
)

// shownRow is a row of the rights as it is typed, and in words where its letters say little.
type shownRow struct{ Row, Words string }

func (a *App) shownRows(rows [][]string) (shown []shownRow) {
	for _, row := range rows {
		shown = append(shown, shownRow{strings.Join(row, ", "), wordsOf(row, a.norms.today().Location())})
	}
	return shown
}

// wordsOf says what a row means that is more than a rule or a role, with times as the
// company has them.
func wordsOf(row []string, zone *time.Location) string {
	at := func(end string) string {
		t, err := time.Parse(time.RFC3339, end)
		if err != nil {
			return end
		}
		return t.In(zone).Format("2006-01-02 15:04")
	}
	switch {
	case row[0] == "p2" && len(row) == 5:
		return fmt.Sprintf("%s is %s until %s", labelOf(row[1]), labelOf(row[2]), at(row[4])) //nolint:gosec // of five
	case row[0] == "p3" && len(row) == 6:
		return fmt.Sprintf("%s stands in for %s from %s to %s", labelOf(row[1]), labelOf(row[2]), at(row[4]), at(row[5])) //nolint:gosec // of six
	case row[0] == "p4" && len(row) == 4:
		return fmt.Sprintf("nobody is both %s and %s", labelOf(row[2]), labelOf(row[3]))
	}
	return ""
}

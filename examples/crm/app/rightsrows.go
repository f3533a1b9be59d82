package app

import (
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// shownRow is a row of the rights as it is typed, and in words.
type shownRow struct{ Row, Words string }

func (a *App) shownRows(rows [][]string) (shown []shownRow) {
	for _, row := range rows {
		shown = append(shown, shownRow{strings.Join(row, ", "), wordsOf(row, a.zone())})
	}
	return shown
}

// authoredRows are rows with who put them there.
func (a *App) authoredRows(rows []rbac.Authored) []shownRow {
	var plain [][]string
	for _, row := range rows {
		plain = append(plain, row.Rule)
	}
	shown := a.shownRows(plain)
	for i, row := range rows {
		if row.By.Number > 0 {
			shown[i].Words += fmt.Sprintf("; by %s on %s in version %d: %s", orNobody(row.By.Author), day(row.By.Time, a.zone()), row.By.Number, row.By.Reason)
		}
	}
	return shown
}

func orNobody(author string) string {
	if author == "" {
		return "nobody"
	}
	return author
}

// rightWords says what a right lets people do, such as "create contacts".
func rightWords(object string, action crmguard.Action) string {
	if name, ok := strings.CutPrefix(object, "section:"); ok && action == crmguard.Access {
		return "open " + name
	}
	if field, ok := strings.CutPrefix(object, kind+"#"); ok {
		return string(action) + " the " + field + " of contacts"
	}
	return string(action) + " " + object
}

// relationWords says on whose records, such as ": own, department". To a section nobody
// has a relation.
func relationWords(object string, relations []string) string {
	if strings.HasPrefix(object, "section:") || len(relations) == 0 {
		return ""
	}
	words := make([]string, len(relations))
	for i, relation := range relations {
		if words[i] = choiceLabels[relation]; words[i] == "" {
			words[i] = relation
		}
	}
	return ": " + strings.Join(words, ", ")
}

// wordsOf says what a row means, with times as the company has them.
func wordsOf(row []string, zone *time.Location) string {
	at := func(end string) string {
		t, err := time.Parse(time.RFC3339, end)
		if err != nil {
			return end
		}
		return t.In(zone).Format("2006-01-02 15:04")
	}
	switch {
	case row[0] == "g" && len(row) == 4:
		return fmt.Sprintf("%s is %s", labelOf(row[1]), labelOf(row[2])) //nolint:gosec // of four
	case row[0] == "p" && len(row) == 7:
		can := " can "
		if row[6] == "deny" {
			can = " can never "
		}
		return labelOf(row[1]) + can + rightWords(row[3], crmguard.Action(row[4])) + relationWords(row[3], row[5:6]) //nolint:gosec // of seven
	case row[0] == "p2" && len(row) == 5:
		return fmt.Sprintf("%s is %s until %s", labelOf(row[1]), labelOf(row[2]), at(row[4])) //nolint:gosec // of five
	case row[0] == "p3" && len(row) == 6:
		return fmt.Sprintf("%s stands in for %s from %s to %s", labelOf(row[1]), labelOf(row[2]), at(row[4]), at(row[5])) //nolint:gosec // of six
	case row[0] == "p4" && len(row) == 4:
		return fmt.Sprintf("nobody is both %s and %s", labelOf(row[2]), labelOf(row[3]))
	}
	return ""
}

package rbac

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// What reviews of people who leave and who move have in common.

// Right is what somebody may do, and under which relations to records.
type Right struct {
	Object    string          // a kind, kind#field or section:name
	Action    crmguard.Action // as in rows
	Relations []string
}

// Authored is a row and who put it there.
type Authored struct {
	Rule  []string // the row, its type first
	Where string   // it stands, as in [Finding]
	By    Version  // that added it, without its rows; zero if that is not known
}

// Records are how many records of a kind a person is responsible for, and how many are
// shared with that person: counts of the host's.
type Records struct {
	Kind          string
	Owned, Shared int
}

// sorted are names, each once, without empty ones.
func sorted(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(nonEmpty(names))))
}

// authored are rows of a tenant that are in force, each with the version that added it last
// if there is a [Store].
func (e *Engine) authored(ctx context.Context, tenant string, policy *snapshot) ([]Authored, error) {
	const page = 200
	var rows []Authored
	unknown := make(map[[7]string]int) // index of rows
	for _, r := range policy.rows.all() {
		if r.tenant() == tenant {
			unknown[r.key()] = len(rows)
			rows = append(rows, Authored{Rule: r.rule(), Where: r.where})
		}
	}
	for before := int64(0); len(unknown) > 0; {
		versions, err := e.History(ctx, tenant, before, page)
		if err != nil && !errors.Is(err, ErrNoVersions) {
			return nil, fmt.Errorf("rbac: who gave what: %w", err)
		}
		for _, v := range versions {
			added := v.Added
			v.Added, v.Removed, before = nil, nil, v.Number
			for _, rule := range added {
				key := rowOf("", rule).key()
				if i, ok := unknown[key]; ok {
					rows[i].By = v
					delete(unknown, key)
				}
			}
		}
		if len(versions) < page {
			break
		}
	}
	return rows, nil
}

// names reports whether the row is about a person.
func (a Authored) names(person string) bool {
	return a.Rule[0] != "p4" && a.Rule[1] == person || a.Rule[0] == "p3" && a.Rule[2] == person
}

// rightsOf lists rights, without those that rules deny wholly.
func rightsOf(rights map[right]relationSet) (list []Right) {
	for what, under := range rights {
		if under = under & possible(what.object); under != 0 {
			list = append(list, Right{what.object, crmguard.Action(what.action), under.words()})
		}
	}
	slices.SortFunc(list, func(a, b Right) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(string(a.Action), string(b.Action)))
	})
	return list
}

// possible are the relations that there are to an object.
func possible(object string) relationSet {
	if isSection(object) {
		return 1 << relNone
	}
	return everyRelation
}

// String tells what may be done.
func (r Right) String() string {
	return string(r.Action) + " " + r.Object + recordsThatAre(r.Object, r.Relations)
}

// String tells the row, where it stands and who put it there.
func (a Authored) String() string {
	text := located(a.Rule, a.Where)
	if a.By.Number == 0 {
		return text
	}
	author := "nobody"
	if a.By.Author != "" {
		author = personPrefix + a.By.Author
	}
	return fmt.Sprintf("%s, by %s on %s in version %d: %s", text, shown(author), a.By.Time.UTC().Format("2006-01-02"), a.By.Number, shown(a.By.Reason))
}

// located is a row and where it stands.
func located(rule []string, where string) string {
	text := strings.Join(rule, ", ")
	if where != "" {
		text += " (" + where + ")"
	}
	return text
}

// String tells the counts.
func (r Records) String() string {
	return fmt.Sprintf("%s: responsible for %d, shared %d", shown(r.Kind), r.Owned, r.Shared)
}

func texts[T any](of []T, text func(T) string) (lines []string) {
	for _, v := range of {
		lines = append(lines, text(v))
	}
	return lines
}

// reviewWriter writes a review in sections.
type reviewWriter struct{ text strings.Builder }

func (w *reviewWriter) section(title string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(&w.text, "%s:\n  %s\n", title, strings.Join(lines, "\n  "))
	}
}

package app

import (
	"net/http"

	"github.com/crmguard/crmguard"
)

// PlainContacts serves the newest contacts as a CRM without crmguard's rights,
// masks and journal would: the same query, rows, opening and template. It is what
// benchmarks compare GET /contacts with, and is mounted nowhere.
func (a *App) PlainContacts() http.Handler {
	viewer := &viewer{Login: "anybody", Nav: []navLink{{Path: "/contacts", Label: "Contacts", Current: true}}}
	everything := func(int) (string, []any, error) { return "1=1", nil, nil }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := crmguard.System(r.Context(), tenant, "benchmark")
		contacts, older, err := a.db.page(ctx, everything, 0)
		if err == nil {
			err = a.table.Open(ctx, tenant, contacts...)
		}
		if err == nil {
			rows := make([]row, len(contacts))
			for i, c := range contacts {
				rows[i] = row{
					ID: c.ID, Owner: c.Owner, Unit: a.people.unitName(c.Unit), Erased: !c.Erased.IsZero(),
					Name: value{"clear", c.Name}, Phone: value{"clear", c.Phone}, Email: value{"clear", c.Email},
					Company: value{"clear", c.Company}, City: value{"clear", c.City},
				}
			}
			body := listPage{Heading: "Contacts", Scope: "Newest first", MayAdd: true, MaySearch: true, Rows: rows, Older: older}
			err = a.render(w, http.StatusOK, "contacts", page{Title: "Contacts", Viewer: viewer, Watermark: a.watermark("anybody"), Body: body})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

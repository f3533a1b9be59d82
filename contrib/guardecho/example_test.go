package guardecho_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardecho"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

// byCookie takes each token for a person's name. Hosts have session.Manager.
type byCookie struct{}

func (byCookie) Authenticate(_ context.Context, token string) (crmguard.Subject, error) {
	return crmguard.Subject{Tenant: "acme", ID: token, Kind: crmguard.KindEmployee}, nil
}

func (byCookie) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return []string{"seller"}, []string{"sales"}, nil
}

func Example() {
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
	journal := crmguardtest.NewRecorder()
	g, err := guard.New(byCookie{}, rights, byCookie{}, journal, nil)
	if err != nil {
		panic(err)
	}
	contactOf := func(c *echo.Context) (crmguard.Resource, error) { // owner and department come from the host's own data
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: c.Param("id"), Owner: "anna", Unit: "sales"}, nil
	}
	phoneOf := contactOf
	show := func(c *echo.Context) error {
		return c.String(http.StatusOK, "the card of client "+c.Param("id"))
	}
	reveal := show

	e := echo.New()
	e.Use(middleware.Recover(), guardecho.Handler(g))
	e.GET("/contacts/:id", guardecho.Protect(g, crmguard.View, contactOf, show))
	e.POST("/contacts/:id/phone", guardecho.ProtectAct(g, crmguard.Reveal, phoneOf, reveal))

	for _, person := range []string{"anna", "boris"} {
		request := httptest.NewRequest("GET", "/contacts/17", nil)
		request.AddCookie(&http.Cookie{Name: "__Host-session", Value: person})
		w := httptest.NewRecorder()
		e.ServeHTTP(w, request)
		fmt.Println(person, w.Code)
	}
	for _, entry := range journal.Events() {
		fmt.Println(entry.Subject.ID, entry.Action, entry.Resource.ID, entry.Outcome)
	}
	// Output:
	// anna 200
	// boris 404
	// anna view 17 done
	// boris view 17 denied
}

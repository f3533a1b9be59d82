package guardgin_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardgin"
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
	contactOf := func(c *gin.Context) (crmguard.Resource, error) { // owner and department come from the host's own data
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: c.Param("id"), Owner: "anna", Unit: "sales"}, nil
	}
	phoneOf := contactOf
	show := func(c *gin.Context) error {
		c.String(http.StatusOK, "the card of client %s", c.Param("id"))
		return nil
	}
	reveal := show
	gin.SetMode(gin.ReleaseMode)

	r := gin.New()
	r.Use(gin.Recovery(), guardgin.Handler(g))
	r.GET("/contacts/:id", guardgin.Protect(g, crmguard.View, contactOf, show))
	r.POST("/contacts/:id/phone", guardgin.ProtectAct(g, crmguard.Reveal, phoneOf, reveal))

	for _, person := range []string{"anna", "boris"} {
		request := httptest.NewRequest("GET", "/contacts/17", nil)
		request.AddCookie(&http.Cookie{Name: "__Host-session", Value: person})
		w := httptest.NewRecorder()
		r.ServeHTTP(w, request)
		fmt.Println(person, w.Code)
	}
	for _, e := range journal.Events() {
		fmt.Println(e.Subject.ID, e.Action, e.Resource.ID, e.Outcome)
	}
	// Output:
	// anna 200
	// boris 404
	// anna view 17 done
	// boris view 17 denied
}

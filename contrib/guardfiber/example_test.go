package guardfiber_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/recover"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardfiber"
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
	contactOf := func(c fiber.Ctx) (crmguard.Resource, error) { // owner and department come from the host's own data
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: c.Params("id"), Owner: "anna", Unit: "sales"}, nil
	}
	phoneOf := contactOf
	show := func(c fiber.Ctx) error { return c.SendString("the card of client " + c.Params("id")) }
	reveal := show

	app := fiber.New(fiber.Config{Immutable: true, ErrorHandler: guardfiber.ErrorHandler(g)})
	app.Use(recover.New(), guardfiber.Handler(g))
	app.Get("/contacts/:id", guardfiber.Protect(g, crmguard.View, contactOf, show))
	app.Post("/contacts/:id/phone", guardfiber.ProtectAct(g, crmguard.Reveal, phoneOf, reveal))

	for _, person := range []string{"anna", "boris"} {
		request := httptest.NewRequest("GET", "/contacts/17", nil)
		request.Header.Set("Cookie", "__Host-session="+person)
		resp, err := app.Test(request)
		if err != nil {
			panic(err)
		}
		fmt.Println(person, resp.StatusCode)
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

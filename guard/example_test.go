package guard_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

func Example() {
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.View, "contacts")
	journal := crmguardtest.NewRecorder()
	g, err := guard.New(sessions{"anna-token": person("anna")}, rights, &directory{}, journal, nil)
	if err != nil {
		panic(err)
	}
	show := func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, "the card of contact 1")
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /contacts/{id}", g.Protect(crmguard.View, contactOf, show))
	server := g.Handler(mux)

	for _, token := range []string{"anna-token", "boris-token"} {
		r := httptest.NewRequest("GET", "/contacts/1", nil)
		r.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	for _, e := range journal.Events() {
		fmt.Println(e.Subject.ID, e.Action, e.Resource.Kind, e.Resource.ID, e.Outcome)
	}
	// Output:
	// 200
	// 401
	// anna view contacts 1 done
}

// What is not HTTP asks and acts the same way.
func ExampleGuard_Do() {
	rights := crmguardtest.NewChecker().Allow("anna", crmguard.Export, "contacts")
	journal := crmguardtest.NewRecorder()
	g, err := guard.New(sessions{}, rights, &directory{}, journal, nil)
	if err != nil {
		panic(err)
	}
	ctx := crmguard.WithSubject(context.Background(), person("anna"))
	all := crmguard.Resource{Tenant: "acme", Kind: "contacts"}
	err = g.Do(ctx, crmguard.Export, all, func(ctx context.Context) error {
		guard.Describe(ctx, func(d *guard.Details) { d.Count = 120 })
		return nil
	})
	fmt.Println(err)
	for _, e := range journal.Events() {
		fmt.Println(e.Action, e.Outcome, e.Count)
	}
	// Output:
	// <nil>
	// export attempted 0
	// export done 120
}

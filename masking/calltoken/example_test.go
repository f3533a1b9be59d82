package calltoken_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/masking/calltoken"
)

// crm is what a host knows about people and records.
type crm struct{}

func (crm) Person(context.Context, crmguard.Subject) (roles, units []string, err error) {
	return []string{"seller"}, []string{"sales"}, nil // and a Denial if the person is closed
}

func (crm) Record(_ context.Context, c calltoken.Claims) (crmguard.Resource, error) {
	return crmguard.Resource{Tenant: c.Subject.Tenant, Kind: c.Kind, ID: c.Record, Field: c.Field, Owner: "anna"}, nil
}

func (crm) Number(context.Context, calltoken.Claims) (string, error) {
	return "+44 20 7946 0018", nil // in a host: opened by encrypt
}

func Example() {
	// In the CRM guard has checked crmguard.Call and recorded it.
	anna := crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}
	ctx := crmguard.WithAct(crmguard.WithSubject(context.Background(), anna), crmguard.Call,
		crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17", Field: "phone", Owner: "anna"})

	keys := crmguardtest.NewKeys() // in a host: *encrypt.Keyring
	issuer, err := calltoken.NewIssuer(keys, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := issuer.Issue(ctx, "c17", "101")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(token)

	// The telephony side.
	exchange := calltoken.DialerFunc(func(_ context.Context, o calltoken.Order) error {
		fmt.Println("ring", o.Leg, "then", o.Number.Show())
		fmt.Println("logged as", o.Number)
		return nil
	})
	resolver, err := calltoken.NewResolver(keys, calltoken.NewMemory(), crmguardtest.NewChecker().Allow("anna", crmguard.Call, "contacts"),
		crmguardtest.NewRecorder(), crm{}, exchange, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		call, err := resolver.Resolve(context.Background(), "acme", token.Show())
		fmt.Println(call.ID == token.ID(), call.State, err)
	}
	// Output:
	// [redacted]
	// ring 101 then +442079460018
	// logged as [redacted]
	// true ringing <nil>
	// true ringing <nil>
}

// A CRM and an exchange on the same machine; elsewhere the address is https.
func ExampleSender() {
	key, err := calltoken.NewKey(bytes.Repeat([]byte{1}, 32)) // in a host: random, from a file that both sides read
	if err != nil {
		fmt.Println(err)
		return
	}
	line := calltoken.DialerFunc(func(_ context.Context, o calltoken.Order) error {
		fmt.Println("ring", o.Leg, "then", o.Number.Show())
		return nil
	})
	receiver, err := calltoken.NewReceiver(key, calltoken.NewMemory(), line, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	exchange := httptest.NewServer(receiver)
	defer exchange.Close()

	sender, err := calltoken.NewSender(exchange.URL, key, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	number, err := calltoken.NewNumber("020 7946 0018", "GB")
	if err != nil {
		fmt.Println(err)
		return
	}
	order := calltoken.Order{Tenant: "acme", CallID: "AAUKDxQZHiMoLTI3PEFG", Leg: "101", Number: number, Expires: time.Now().Add(time.Minute)}
	fmt.Println(sender.Dial(context.Background(), order))
	fmt.Println(sender.Dial(context.Background(), order)) // as after a lost answer
	// Output:
	// ring 101 then +442079460018
	// <nil>
	// <nil>
}

func ExampleVerifyReport() {
	key, err := calltoken.NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		fmt.Println(err)
		return
	}
	header := http.Header{}
	body, err := calltoken.SignReport(key, header, calltoken.Report{CallID: "AAUKDxQZHiMoLTI3PEFG", State: calltoken.Ended}, time.Now())
	fmt.Println(string(body), err)

	report, err := calltoken.VerifyReport(key, header, body, time.Now())
	fmt.Println(report.CallID, report.State, err)
	// Output:
	// {"call":"AAUKDxQZHiMoLTI3PEFG","state":"ended"} <nil>
	// AAUKDxQZHiMoLTI3PEFG ended <nil>
}

package main

import (
	"context"

	peermask "github.com/showa-93/go-mask"

	"github.com/crmguard/crmguard/masking"
)

// maskingClaims compare the masked view of a contact, ten fields of which five
// are masked, to go-mask, which fills or cuts strings without looking at what
// they hold.
func maskingClaims() []claim {
	return []claim{{name: "masking.struct", unit: "ns", direction: atMost, limit: 1, open: openMasking}}
}

type ourContact struct {
	ID      string `mask:"-"`
	Name    string `mask:"name"`
	Phone   string `mask:"phone"`
	Mobile  string `mask:"phone"`
	Email   string `mask:"email"`
	Note    string `mask:"text"`
	Company string `mask:"-"`
	Owner   string `mask:"-"`
	Unit    string `mask:"-"`
	Visits  int
}

type peerContact struct {
	ID      string
	Name    string `mask:"filled"`
	Phone   string `mask:"filled"`
	Mobile  string `mask:"filled"`
	Email   string `mask:"filled"`
	Note    string `mask:"fixed"`
	Company string
	Owner   string
	Unit    string
	Visits  int
}

func openMasking(context.Context, *servers) (trial, error) {
	theirs := peerContact{
		ID: "104729", Name: "Анна Петрова", Phone: "+7 916 123-45-67", Mobile: "+49 151 23456789", Email: "anna.petrova@example.com",
		Note: "Wants the offer by Friday", Company: "Example GmbH", Owner: "boris", Unit: "sales", Visits: 7,
	}
	ours := ourContact(theirs)
	return sideBySide(func() error {
		_, err := masking.View(ours, nil)
		return err
	}, func() error {
		_, err := peermask.Mask(theirs)
		return err
	}), nil
}

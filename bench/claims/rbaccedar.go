package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cedar-policy/cedar-go"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// cedarScopes say in Cedar whose records a rule is about.
var cedarScopes = map[string]string{
	"all":    "true",
	"own":    `resource has owner && resource.owner == principal`,
	"dept":   `(resource has owner && resource.owner == principal) || (resource has unit && principal has units && principal.units.contains(resource.unit))`,
	"tree":   `(resource has owner && resource.owner == principal) || (resource has unit && principal has units && resource.unit in principal.units)`,
	"headed": `(resource has owner && resource.owner == principal) || (resource has unit && principal has heads && resource.unit in principal.heads)`,
	"shared": `resource has shared && resource.shared`,
}

// cedarPolicies says in Cedar what the rows of a policy say: a policy for each rule.
func cedarPolicies(rows string) (*cedar.PolicySet, error) {
	r := csv.NewReader(strings.NewReader(rows))
	r.Comment, r.TrimLeadingSpace, r.FieldsPerRecord = '#', true, -1
	records, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, row := range records {
		if row[0] != "p" {
			continue
		}
		word := map[string]string{"allow": "permit", "deny": "forbid"}[row[6]]
		role, _ := strings.CutPrefix(row[1], "role:")
		fmt.Fprintf(&text, "%s (principal in Role::%q, action == Action::%q, resource in Kind::%q) when { %s };\n",
			word, row[2]+"/"+role, row[4], row[2]+"/"+row[3], cedarScopes[row[5]])
	}
	return cedar.NewPolicySetFromBytes("starter.cedar", []byte(text.String()))
}

// openRightsCedar asks whether a seller may open own contacts, by the starter policy.
func openRightsCedar(ctx context.Context, _ *servers) (trial, error) {
	dir, remove, err := rightsDir()
	if err != nil {
		return trial{}, err
	}
	defer func() { _ = remove() }() // read by then
	rows := rbac.StarterPolicy() + "g, u:anna, role:seller, default\n"
	path := filepath.Join(dir, "starter.csv")
	if err := os.WriteFile(path, []byte(rows), 0o600); err != nil {
		return trial{}, err
	}
	ours, err := loadRights(ctx, path)
	if err != nil {
		return trial{}, err
	}
	policies, err := cedarPolicies(rows)
	if err != nil {
		return trial{}, err
	}
	anna, seller := cedar.NewEntityUID("User", "anna"), cedar.NewEntityUID("Role", "default/seller")
	contact, contacts := cedar.NewEntityUID("Record", "17"), cedar.NewEntityUID("Kind", "default/contacts")
	entities := cedar.EntityMap{
		anna:    {UID: anna, Parents: cedar.NewEntityUIDSet(seller)},
		contact: {UID: contact, Parents: cedar.NewEntityUIDSet(contacts), Attributes: cedar.NewRecord(cedar.RecordMap{"owner": anna})},
	}
	request := cedar.Request{Principal: anna, Action: cedar.NewEntityUID("Action", "view"), Resource: contact}
	s := crmguard.Subject{Tenant: "default", ID: "anna", Kind: crmguard.KindEmployee}
	card := crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "17", Owner: "anna"}
	return trial{
		ours: aSecond(perOp(func() error { return ours.Check(ctx, s, crmguard.View, card) })),
		peer: aSecond(perOp(func() error {
			if ok, _ := cedar.Authorize(policies, entities, request); !ok {
				return errRefused
			}
			return nil
		})),
	}, nil
}

package rbac

import _ "embed" // for starter.csv

//go:embed starter.csv
var starter string

// StarterPolicy returns a policy for a small CRM of one company, whose tenant is
// crmguard.SingleTenant, in Casbin's CSV format: a file to copy and to edit.
// Roles are owner, admin, head, seller, accountant and integration.
func StarterPolicy() string { return starter }

package rbac

import _ "embed" // for starter.csv

//go:embed starter.csv
var starter string

// StarterPolicy returns a policy for a CRM of one company, whose tenant is
// crmguard.SingleTenant, in Casbin's CSV format: a file to copy and to edit.
// Its kinds are contacts, deals, tasks, invoices, projects, chats and dictionaries, its
// sections analytics, settings, staff and journal, its roles owner, admin, head, seller,
// accountant, support, marketer and integration. rbac/testdata/starter.txt shows it as a
// table.
func StarterPolicy() string { return starter }

package rbac

import _ "embed" // for StarterPolicy

// StarterPolicy is a policy for a small CRM of one company, whose tenant is
// crmguard.SingleTenant, in Casbin's CSV format: a file to copy and to edit.
// Roles are owner, admin, head, seller, accountant and integration.
//
//go:embed starter.csv
var StarterPolicy string

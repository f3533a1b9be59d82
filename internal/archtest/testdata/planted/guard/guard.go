package guard

import (
	_ "github.com/crmguard/crmguard"
	_ "github.com/crmguard/crmguard/rbac"
	_ "golang.org/x/text/language"
	_ "net/http"
)

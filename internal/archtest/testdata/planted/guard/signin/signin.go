package signin

import (
	_ "github.com/crmguard/crmguard"
	_ "github.com/crmguard/crmguard/session"
)

package encrypt

import (
	_ "context"
	_ "github.com/casbin/casbin/v2"
	_ "github.com/crmguard/crmguard"
	_ "github.com/crmguard/crmguard/audit"
	_ "github.com/crmguard/crmguard/encrypt/encryptsql"
	_ "github.com/tink-crypto/tink-go/v2/tink"
)

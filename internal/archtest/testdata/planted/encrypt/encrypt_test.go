package encrypt

import (
	_ "github.com/crmguard/crmguard/audit"
	_ "modernc.org/sqlite"
	_ "testing"
)

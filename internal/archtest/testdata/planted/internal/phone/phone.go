package phone

import (
	_ "github.com/crmguard/crmguard/masking"
	_ "strings"
)

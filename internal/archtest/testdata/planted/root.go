package crmguard

import (
	_ "context"
	_ "github.com/crmguard/crmguard/encrypt"
	_ "golang.org/x/text/unicode/norm"
)

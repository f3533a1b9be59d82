package main

import (
	_ "github.com/crmguard/crmguard/audit"
	_ "github.com/crmguard/crmguard/encrypt"
	_ "modernc.org/sqlite"
)

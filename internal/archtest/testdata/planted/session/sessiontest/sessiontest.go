package sessiontest

import (
	_ "github.com/crmguard/crmguard/session"
	_ "github.com/stretchr/testify/require"
	_ "testing"
)

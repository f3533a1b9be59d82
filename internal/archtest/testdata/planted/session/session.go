package session

import (
	_ "github.com/crmguard/crmguard/internal/testservers"
	_ "github.com/crmguard/crmguard/session/sessiontest"
	_ "github.com/stretchr/testify/require"
	_ "testing"
	_ "testing/fstest"
)

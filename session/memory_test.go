package session_test

import (
	"testing"

	"github.com/crmguard/crmguard/session"
	"github.com/crmguard/crmguard/session/sessiontest"
)

func TestMemory(t *testing.T) {
	sessiontest.Run(t, func(*testing.T) session.Store { return session.NewMemory() })
}

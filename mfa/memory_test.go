package mfa_test

import (
	"testing"

	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfatest"
)

func TestMemory(t *testing.T) {
	mfatest.Run(t, func(*testing.T) mfa.Store { return mfa.NewMemory() })
}

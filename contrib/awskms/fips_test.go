package awskms_test

import (
	"testing"

	"github.com/crmguard/crmguard/internal/fipstest"
)

// The KEK does all it does where only FIPS 140-3 algorithms may.
func TestFIPSOnly(t *testing.T) { fipstest.Only(t, TestKEK) }

package quota_test

import (
	"testing"

	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotatest"
)

func TestMemory(t *testing.T) {
	quotatest.Run(t, func(*testing.T) quota.Store { return quota.NewMemory() })
}

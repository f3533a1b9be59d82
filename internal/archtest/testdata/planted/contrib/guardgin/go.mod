module github.com/crmguard/crmguard/contrib/guardgin

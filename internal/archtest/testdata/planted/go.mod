module github.com/crmguard/crmguard

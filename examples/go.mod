module github.com/crmguard/crmguard/examples

go 1.26.0

require github.com/crmguard/crmguard v0.0.0

replace github.com/crmguard/crmguard => ..

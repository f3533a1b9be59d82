module github.com/crmguard/crmguard/bench

go 1.26.0

require (
	github.com/crmguard/crmguard v0.0.0
	github.com/crmguard/crmguard/examples v0.0.0
)

replace github.com/crmguard/crmguard => ..

replace github.com/crmguard/crmguard/examples => ../examples

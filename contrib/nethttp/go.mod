module github.com/crmguard/crmguard/contrib/nethttp

go 1.26.0

require github.com/crmguard/crmguard v0.0.0

require github.com/go-chi/chi/v5 v5.5.0

require golang.org/x/sys v0.49.0 // indirect

replace github.com/crmguard/crmguard => ../..

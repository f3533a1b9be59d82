module github.com/crmguard/crmguard/contrib/guardecho

go 1.26.0

require (
	github.com/crmguard/crmguard v0.0.0
	github.com/stretchr/testify v1.12.1
)

require golang.org/x/sys v0.49.0 // indirect

require (
	github.com/labstack/echo/v5 v5.3.1
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/time v0.15.0 // indirect
)

replace github.com/crmguard/crmguard => ../..

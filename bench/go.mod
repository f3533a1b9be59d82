module github.com/crmguard/crmguard/bench

go 1.26.0

require (
	github.com/crmguard/crmguard v0.0.0
	github.com/showa-93/go-mask v0.6.2
	github.com/stretchr/testify v1.12.1
	github.com/tink-crypto/tink-go/v2 v2.9.0
)

require (
	github.com/rivo/uniseg v0.4.7 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

replace github.com/crmguard/crmguard => ..

replace github.com/crmguard/crmguard/examples => ../examples

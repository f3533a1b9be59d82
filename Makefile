# make test    tests of every module; installs gcc and PostgreSQL where it may
#              NOINSTALL=1               installs nothing
#              CRMGUARD_TEST_POSTGRES=…  URL of a server to use
# make lint    gofmt, go vet, golangci-lint, tidy module files
# make fuzz    every fuzz target; FUZZTIME=10s; then processes and PostgreSQL are killed 500 times
# make bench   benchmarks, and the claims of the README
# make clean   removes what these built

.PHONY: test lint fuzz bench clean

# exec, so that signals sent to make reach the program and not a shell.
test lint fuzz bench:
	@GOWORK=off go build -buildvcs=false -o bin/dev ./internal/dev && exec bin/dev $@

clean:
	rm -rf bin

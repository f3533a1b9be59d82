// Package integration holds tests of crmguard against what other programs write and
// read. It is a module of its own: they need what no importer of crmguard should.
package integration

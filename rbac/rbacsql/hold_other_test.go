//go:build !unix

package rbacsql_test

import "os"

// hold does nothing where processes cannot be stopped.
func hold(*os.Process, bool) error { return nil }

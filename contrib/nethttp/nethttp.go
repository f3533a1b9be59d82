// Package nethttp has no code: routers that take an http.Handler, such as chi,
// need no adapter. Its tests send the requests of guardtest through chi and show how
// guard is mounted there.
package nethttp

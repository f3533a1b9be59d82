// Package data holds the invented contacts of the example CRM; its README says how
// they are made.
package data

import _ "embed" // contacts.csv

// Contacts is contacts.csv: ten thousand contacts, duplicates and broken rows.
//
//go:embed contacts.csv
var Contacts []byte

package rbacsql

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/rbac"
)

// tables are where documents are, and what goes with them.
type tables struct {
	db      *sqldb.DB
	keys    crmguard.Authenticator // nil: NewWithoutKeys
	tenant  string
	marks   Marks
	journal crmguard.Recorder
	log     *slog.Logger
	now     func() time.Time
}

func (t *tables) channel() string { return t.db.Q("crmguard_policy") }

// The documents: the policy, and the departments of each tenant.
const (
	policyDocument      = "policy"
	departmentsDocument = "departments/" // and the tenant
)

// versions are those of one document.
type versions struct {
	tables
	document string

	mu   sync.Mutex
	seen rbac.Version // the newest that was genuine
}

// kind of the document, which is that of its entries in the journal.
func (v *versions) kind() string {
	kind, _, _ := strings.Cut(v.document, "/")
	return kind
}

// mark is the name of the document among those that have marks. No two that differ have
// the same.
func (v *versions) mark() string {
	if v.document == policyDocument {
		return policyDocument + "/" + v.tenant
	}
	return departmentsDocument + strconv.Quote(v.tenant) + "/" + strings.TrimPrefix(v.document, departmentsDocument)
}

// sign is what is notified.
func (v *versions) sign(d *document) string {
	if v.document == policyDocument {
		return fmt.Sprint(d.Number)
	}
	return v.document
}

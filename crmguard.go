// Package crmguard holds the words that the packages of this module share: who
// acts ([Subject]), on what ([Resource]), whether that may be ([Checker],
// [Denial]), that it was ([Event], [Recorder]), and how personal data is sealed
// ([Sealer]). It imports the standard library only and does nothing itself.
//
// Each protection is a package of its own below this one (masking, rbac,
// encrypt, audit, password, session). None imports another: what one needs of
// another comes in through the interfaces here, handed over by the host's main.
// Package guard composes them into net/http middleware.
//
//	subject, ok := crmguard.SubjectFrom(ctx)
//	...
//	err := rights.Check(ctx, subject, crmguard.View, crmguard.Resource{
//		Tenant: subject.Tenant, Kind: "contacts", ID: "17", Owner: "anna", Unit: "sales",
//	})
//	if denial, ok := errors.AsType[*crmguard.Denial](err); ok { ... }
//
// # Security notes
//
// A tenant is never empty, and one tenant's subject never reaches another's
// resource; hosts with a single company use [SingleTenant]. Whatever cannot be
// decided is refused: any error of a Checker means no.
package crmguard

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// SingleTenant is the tenant of a host that serves one company.
const SingleTenant = "default"

// SubjectKind tells people, integrations and the host's own jobs apart. The
// zero value is refused everywhere.
type SubjectKind uint8

// The kinds of subjects.
const (
	KindEmployee    SubjectKind = iota + 1 // a person of the company
	KindIntegration                        // a program with a credential of its own
	KindSystem                             // a job of the host, see [System]
)

var kindNames = [...]string{"", "employee", "integration", "system"}

// String returns a lower-case word.
func (k SubjectKind) String() string {
	if k >= KindEmployee && k <= KindSystem {
		return kindNames[k]
	}
	return fmt.Sprintf("SubjectKind(%d)", uint8(k))
}

// Subject is who acts. It travels in the context ([WithSubject]) and is
// read-only once it is there.
type Subject struct {
	Tenant     string
	ID         string
	OnBehalfOf string // for whom an integration or deputy acts; empty: for itself
	Kind       SubjectKind

	Session         string // id of the session, never its token
	Device          string
	Addr            netip.Addr // as the edge resolved it
	Assurance       Assurance
	AuthenticatedAt time.Time // when Assurance was last proved

	Roles  []string // filled for each request by the directory
	Units  []string // departments the person belongs to, likewise
	Scopes []string // of the credential, if it narrows the person's rights; nil: it does not
}

// Action names what is done to a resource. The constants are all there are.
type Action string

// The actions.
const (
	View      Action = "view"      // open one record
	List      Action = "list"      // see rows of a kind
	Search    Action = "search"    // find records by value
	Reveal    Action = "reveal"    // read one hidden field in the clear
	Unmask    Action = "unmask"    // see fields of a kind without masks
	Call      Action = "call"      // ring a client without seeing the number
	Create    Action = "create"    // add a record
	Update    Action = "update"    // change a record
	Delete    Action = "delete"    // remove a record
	Import    Action = "import"    // add records in bulk
	Export    Action = "export"    // take records out in bulk
	Access    Action = "access"    // enter a section, such as section:journal
	SignIn    Action = "sign-in"   // start a session
	Grant     Action = "grant"     // give rights
	Revoke    Action = "revoke"    // take rights or sessions away
	Erase     Action = "erase"     // destroy a client's data
	Configure Action = "configure" // change a setting
)

// Resource is what is acted on. Owner and Unit come from a loader on the server,
// never from the request.
type Resource struct {
	Tenant string // never empty
	Kind   string // such as "contacts" or "section:journal"
	ID     string // empty: the whole kind
	Field  string // empty: the whole record
	Owner  string // person responsible for the record; empty: nobody
	Unit   string // department of the record
	Shared bool   // explicitly shared with the subject
}

// ErrErased is what reads of destroyed data return: the key was destroyed on
// purpose. The data is erased, not broken.
var ErrErased = errors.New("crmguard: the data was erased")

// CheckTenant denies a subject that is incomplete, and a tenant that is empty or
// another than the subject's. Every primitive calls it before it decides. The
// error is a *[Denial] with the code "subject" or "tenant".
func CheckTenant(s Subject, tenant string) error {
	if s.Tenant == "" || s.ID == "" || s.Kind < KindEmployee || s.Kind > KindSystem {
		return &Denial{By: "crmguard", Code: "subject", Detail: "a subject needs tenant, ID and kind"}
	}
	if tenant == "" || tenant != s.Tenant {
		return &Denial{By: "crmguard", Code: "tenant", Detail: "empty or foreign tenant"}
	}
	return nil
}

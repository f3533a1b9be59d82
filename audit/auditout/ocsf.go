package auditout

import (
	"time"

	"github.com/crmguard/crmguard"
)

// The classes of the Open Cybersecurity Schema Framework in which entries leave, and
// the version whose attributes they have. https://schema.ocsf.io/1.3.0
const (
	ocsfVersion = "1.3.0"
	ocsfProduct = "crmguard"

	ocsfIAM            = 3
	ocsfAuthentication = 3002
	ocsfApplication    = 6
	ocsfAPIActivity    = 6003

	ocsfOther = 99 // of every enumeration
)

type ocsfEvent struct {
	ActivityID   int    `json:"activity_id"`
	ActivityName string `json:"activity_name"`
	CategoryUID  int    `json:"category_uid"`
	ClassUID     int    `json:"class_uid"`
	TypeUID      int    `json:"type_uid"`
	SeverityID   int    `json:"severity_id"`
	StatusID     int    `json:"status_id"`
	Status       string `json:"status,omitempty"`
	StatusDetail string `json:"status_detail,omitempty"`
	StatusCode   string `json:"status_code,omitempty"`
	Time         int64  `json:"time"` // milliseconds since 1970
	Count        int    `json:"count,omitempty"`
	Message      string `json:"message,omitempty"`

	Metadata    ocsfMetadata   `json:"metadata"`
	Actor       *ocsfActor     `json:"actor,omitempty"`
	User        *ocsfUser      `json:"user,omitempty"`
	Service     *ocsfNamed     `json:"service,omitempty"`
	Session     *ocsfUID       `json:"session,omitempty"`
	IsMFA       *bool          `json:"is_mfa,omitempty"`
	API         *ocsfAPI       `json:"api,omitempty"`
	SrcEndpoint *ocsfEndpoint  `json:"src_endpoint,omitempty"`
	Resources   []ocsfResource `json:"resources,omitempty"`
	Unmapped    *jsonRecord    `json:"unmapped,omitempty"` // all of it, by its own names
}

type ocsfMetadata struct {
	Version        string     `json:"version"`
	Product        ocsfVendor `json:"product"`
	UID            string     `json:"uid,omitempty"`
	CorrelationUID string     `json:"correlation_uid,omitempty"`
	Sequence       int64      `json:"sequence"`
	LoggedTime     int64      `json:"logged_time,omitempty"`
	TenantUID      string     `json:"tenant_uid,omitempty"`
	LogName        string     `json:"log_name"`
}

type ocsfVendor struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
}

type (
	ocsfActor struct {
		User    *ocsfUser `json:"user"`
		Session *ocsfUID  `json:"session,omitempty"`
	}
	ocsfUser struct {
		UID    string `json:"uid"`
		TypeID int    `json:"type_id"` // 0 unknown, 1 user, 3 system, 99 other
		Type   string `json:"type,omitempty"`
	}
	ocsfUID struct {
		UID string `json:"uid"`
	}
	ocsfNamed struct {
		Name string `json:"name"`
	}
	ocsfAPI struct {
		Operation string     `json:"operation"`
		Service   *ocsfNamed `json:"service,omitempty"`
		Request   *ocsfUID   `json:"request,omitempty"`
	}
	ocsfEndpoint struct {
		IP   string `json:"ip,omitempty"`
		UID  string `json:"uid,omitempty"`
		Name string `json:"name,omitempty"`
	}
	ocsfResource struct {
		UID  string `json:"uid,omitempty"`
		Type string `json:"type,omitempty"`
		Name string `json:"name,omitempty"`
	}
)

// ocsfOf makes an event of class Authentication of a sign-in, and one of class API
// Activity of everything else.
func ocsfOf(r *Record) *ocsfEvent {
	e := &r.Event
	at := e.Time
	if at.IsZero() {
		at = r.Recorded
	}
	o := &ocsfEvent{
		Time: millis(at), Count: e.Count, StatusDetail: e.Reason, Message: r.Note,
		Metadata: ocsfMetadata{
			Version: ocsfVersion, Product: ocsfVendor{Name: ocsfProduct, VendorName: ocsfProduct}, LogName: "audit",
			CorrelationUID: e.ID, Sequence: r.Seq, LoggedTime: millis(r.Recorded), TenantUID: r.Tenant,
		},
		Unmapped: jsonOf(r),
	}
	if e.ID != "" { // what was attempted and what came of it share the event's id
		o.Metadata.UID = e.ID + "/" + e.Outcome.String()
	}
	o.SeverityID, o.StatusID, o.Status = ocsfStatus(e.Outcome)
	user := ocsfUserOf(&e.Subject)
	source := ocsfSource(&e.Subject)
	var session *ocsfUID
	if e.Subject.Session != "" {
		session = &ocsfUID{UID: e.Subject.Session}
	}
	if e.Action == crmguard.SignIn {
		o.CategoryUID, o.ClassUID, o.ActivityID, o.ActivityName = ocsfIAM, ocsfAuthentication, 1, "Logon"
		o.User, o.Service, o.SrcEndpoint, o.Session = user, &ocsfNamed{Name: ocsfProduct}, source, session
		mfa := e.Subject.Assurance >= crmguard.AssuranceOutOfBand
		o.IsMFA = &mfa
	} else {
		o.CategoryUID, o.ClassUID = ocsfApplication, ocsfAPIActivity
		o.ActivityID, o.ActivityName = ocsfActivity(e.Action)
		o.Actor, o.SrcEndpoint = &ocsfActor{User: user, Session: session}, source
		o.API = &ocsfAPI{Operation: o.ActivityName, Service: &ocsfNamed{Name: ocsfProduct}}
		if e.Action != "" {
			o.API.Operation = string(e.Action)
		}
		if e.Request != "" {
			o.API.Request = &ocsfUID{UID: e.Request}
		}
		if e.Resource.Kind != "" {
			o.Resources = []ocsfResource{{UID: e.Resource.ID, Type: e.Resource.Kind, Name: e.Resource.Field}}
		}
	}
	o.TypeUID = o.ClassUID*100 + o.ActivityID
	return o
}

// ocsfActivity is one of Create, Read, Update and Delete, or the action's own name.
func ocsfActivity(a crmguard.Action) (id int, name string) {
	switch a {
	case crmguard.Create, crmguard.Import:
		return 1, "Create"
	case crmguard.View, crmguard.List, crmguard.Search, crmguard.Reveal, crmguard.Unmask, crmguard.Export, crmguard.Access:
		return 2, "Read"
	case crmguard.Update, crmguard.Configure, crmguard.Grant, crmguard.Revoke:
		return 3, "Update"
	case crmguard.Delete, crmguard.Erase:
		return 4, "Delete"
	case "":
		return 0, "Unknown"
	}
	return ocsfOther, string(a)
}

// ocsfStatus says how grave an outcome is and how it ended.
func ocsfStatus(o crmguard.Outcome) (severity, id int, status string) {
	const informational, low, medium, high = 1, 2, 3, 4
	switch o {
	case crmguard.Done:
		return informational, 1, "Success"
	case crmguard.Attempted:
		return informational, ocsfOther, o.String()
	case crmguard.Denied:
		return low, 2, "Failure"
	case crmguard.Failed, crmguard.Undecided:
		return medium, 2, "Failure"
	}
	return high, 0, "Unknown" // an entry that cannot be read
}

func ocsfUserOf(s *crmguard.Subject) *ocsfUser {
	u := &ocsfUser{UID: s.ID}
	switch s.Kind {
	case crmguard.KindEmployee:
		u.TypeID, u.Type = 1, "User"
	case crmguard.KindSystem:
		u.TypeID, u.Type = 3, "System"
	case crmguard.KindIntegration:
		u.TypeID, u.Type = ocsfOther, s.Kind.String()
	}
	if u.UID == "" {
		u.UID = "unknown"
	}
	return u
}

// ocsfSource is where somebody sat, or that nobody knows.
func ocsfSource(s *crmguard.Subject) *ocsfEndpoint {
	p := &ocsfEndpoint{IP: addrOf(s), UID: s.Device}
	if p.IP == "" && p.UID == "" {
		p.Name = "unknown"
	}
	return p
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

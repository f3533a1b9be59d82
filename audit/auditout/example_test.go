package auditout_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
)

// The code of docs/guides/export.md: three ways out of one journal.
func startExport(journal *audit.Log, dir, siem string, trust *tls.Config, hook string, hookSecret []byte) (*auditout.Pump, error) {
	feeds := make([]auditout.Feed, 0, 3)
	add := func(name string, sink auditout.Sink) error {
		cursor, err := auditout.NewFileCursor(filepath.Join(dir, name+".cursor"))
		feeds = append(feeds, auditout.Feed{Name: name, Sink: sink, Cursor: cursor})
		return err
	}
	server, err := auditout.NewSyslog(siem, trust, auditout.OCSF)
	if err != nil {
		return nil, err
	}
	if err := add("siem", server); err != nil {
		return nil, err
	}
	receiver, err := auditout.NewWebhook(hook, hookSecret, auditout.JSON, nil)
	if err != nil {
		return nil, err
	}
	if err := add("hook", receiver); err != nil {
		return nil, err
	}
	if err := add("slog", auditout.NewSlog(slog.NewJSONHandler(os.Stderr, nil))); err != nil {
		return nil, err
	}
	return auditout.New(journal, feeds, nil)
}

func health(pump *auditout.Pump) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, s := range pump.Status(r.Context()) {
			if !s.FailingSince.IsZero() || s.Lag > 10*time.Minute {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprintf(w, "%s: entry %d sent, %d to go, failing since %v\n", s.Name, s.Sent, s.Behind, s.FailingSince)
		}
	}
}

func download(ctx context.Context, w http.ResponseWriter, page audit.Page) error {
	sink, err := auditout.NewWriter(w, auditout.CSV)
	if err != nil {
		return err
	}
	records := make([]auditout.Record, len(page.Entries))
	for i, e := range page.Entries {
		records[i] = auditout.Record{Entry: e}
	}
	return sink.Send(ctx, records)
}

func ExampleFormat() {
	line, err := auditout.CSV.Append([]byte(auditout.CSV.Header()), &samples()[0])
	fmt.Println(string(line), err)
	// Output:
	// seq,recorded,time,tenant,event,outcome,action,subject,subject_kind,on_behalf_of,addr,device,session,kind,record,field,owner,unit,reason,fields,count,request,policy,private,note
	// 7,2026-11-22T10:00:01.123456Z,2026-11-22T10:00:00.123456Z,acme,0193-7,done,update,anna,employee,,192.0.2.7,d-1,s-1,contacts,17,phone,anna,sales,asked,phone,1,r-1,p-1,old new,
	//  <nil>
}

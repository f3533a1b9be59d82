package rbac

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/crmguard/crmguard"
)

// benchPolicy has rules rows with 100 roles, and vera in one of them.
func benchPolicy(rules int) string {
	var b strings.Builder
	b.WriteString("g, u:vera, role:r7, acme\n")
	for i := range rules {
		fmt.Fprintf(&b, "p, role:r%d, acme, kind%d, view, tree, allow\n", i%100, i/100)
	}
	return b.String()
}

var benchRecord = crmguard.Resource{Tenant: "acme", Kind: "kind0", ID: "1", Owner: "anna", Unit: "north-1"}

func BenchmarkCheck(b *testing.B) {
	e := engineFromCSV(b, benchPolicy(10_000), teamOrg())
	vera, ctx := person("vera"), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Check(ctx, vera, crmguard.View, benchRecord); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckParallel(b *testing.B) {
	e := engineFromCSV(b, benchPolicy(10_000), teamOrg())
	vera, ctx := person("vera"), b.Context()
	if err := e.Check(ctx, vera, crmguard.View, benchRecord); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = e.Check(ctx, vera, crmguard.View, benchRecord)
		}
	})
}

func BenchmarkCheckStranger(b *testing.B) {
	e := engineFromCSV(b, benchPolicy(10_000), teamOrg())
	nobody, ctx := person("nobody"), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_ = e.Check(ctx, nobody, crmguard.View, benchRecord)
	}
}

// A thousand people of a hundred companies ask in turn.
func BenchmarkCheckManyPeople(b *testing.B) {
	var text strings.Builder
	subjects, records := make([]crmguard.Subject, 1000), make([]crmguard.Resource, 1000)
	for i := range subjects {
		tenant, id := fmt.Sprint("company-", i/10), fmt.Sprint("person-", i)
		fmt.Fprintf(&text, "g, u:%s, role:r%d, %s\n", id, i%4, tenant)
		for j := range 10 {
			fmt.Fprintf(&text, "p, role:r%d, %s, kind%d, view, tree, allow\n", j%4, tenant, (i+j)%40)
		}
		subjects[i] = crmguard.Subject{Tenant: tenant, ID: id, Kind: crmguard.KindEmployee}
		records[i] = crmguard.Resource{Tenant: tenant, Kind: "kind0", ID: "1", Owner: id}
	}
	e, ctx := engineFromCSV(b, text.String(), nil), b.Context()
	rand.Shuffle(len(subjects), func(i, j int) {
		subjects[i], subjects[j] = subjects[j], subjects[i]
		records[i], records[j] = records[j], records[i]
	})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = e.Check(ctx, subjects[i%1000], crmguard.View, records[i%1000])
	}
}

func BenchmarkCheckAll50(b *testing.B) {
	e := engineFromCSV(b, teamPolicy, teamOrg())
	vera, ctx, rs := person("vera"), b.Context(), page(50)
	for i := range rs {
		rs[i].Unit = "north"
	}
	b.ReportAllocs()
	for b.Loop() {
		e.CheckAll(ctx, vera, crmguard.View, rs)
	}
}

func BenchmarkFilterSQL(b *testing.B) {
	e := engineFromCSV(b, teamPolicy, teamOrg())
	vera, ctx := person("vera"), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		f, err := e.Filter(ctx, vera, crmguard.View, "contacts")
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := f.SQL(contactColumns, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	text := benchPolicy(10_000)
	for b.Loop() {
		if err := lintText(text); err != nil {
			b.Fatal(err)
		}
	}
}

package rbac

import (
	"fmt"
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

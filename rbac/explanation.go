package rbac

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// String tells the answer and its reasons in a few lines.
func (x Explanation) String() string {
	var b strings.Builder
	may := "may"
	if x.Denial != nil {
		may = "may not"
	}
	fmt.Fprintf(&b, "%s %s %s %s", shown(personPrefix+x.Subject.ID), may, shown(string(x.Action)), x.what())
	if x.Denial != nil {
		fmt.Fprintf(&b, ": %s", x.Denial.Code)
	}
	b.WriteByte('\n')
	if x.Denial != nil && x.Denial.Code == denials[noRecord].Code {
		b.WriteString("  the question is about one record and names none\n")
	}
	if x.NeedsScope != "" {
		fmt.Fprintf(&b, "  the credential has no scope %s\n", shown(x.NeedsScope))
	}
	for i, r := range x.By {
		r.write(&b, "  ", []string{"", ", for whom it acts,"}[min(i, 1)])
		for _, as := range r.StandsIn {
			as.write(&b, "  as deputy of ", " until "+as.Until.Format(time.RFC3339))
		}
	}
	return b.String()
}

// what is the resource, for people.
func (x Explanation) what() string {
	what := x.Resource.Kind
	if x.Resource.Field != "" {
		what += "#" + x.Resource.Field
	}
	if x.Resource.ID != "" {
		what += " " + x.Resource.ID
	}
	return shown(what) + " of " + shown(x.Resource.Tenant)
}

func (r Reasons) write(b *strings.Builder, before, after string) {
	fmt.Fprintf(b, "%s%s%s", before, shown(r.Subject), after)
	if len(r.Relations) > 0 {
		fmt.Fprintf(b, " has the relation %s: %s\n", strings.Join(r.Relations, " or "), r.Why)
	} else {
		fmt.Fprintf(b, ": %s\n", r.Why)
	}
	for _, rule := range r.Rules {
		word := "allowed"
		if rule.Denies() {
			word = "denied"
		}
		fmt.Fprintf(b, "    %s by %s", word, located(rule.Rule, rule.Where))
		if len(rule.Path) > 1 {
			fmt.Fprintf(b, ", through %s", strings.Join(rule.Path, " → "))
		}
		b.WriteByte('\n')
	}
	if !r.Allowed && !slices.ContainsFunc(r.Rules, Reason.Denies) {
		b.WriteString("    no rule allows it\n")
	}
	for i, row := range r.Missing {
		word := "would do"
		if i > 0 {
			word = "or"
		}
		fmt.Fprintf(b, "    %s: %s\n", word, strings.Join(row, ", "))
	}
}

// shown quotes what could look like something else than it is.
func shown(text string) string {
	if text == "" || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

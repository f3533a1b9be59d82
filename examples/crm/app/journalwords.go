package app

import (
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// Codes of the journal in words. The page of an entry has the code itself.
var codeWords = map[string]string{
	"quota:norm":            "past the norm of the day",
	"quota:attempts":        "past the norm of refusals",
	"guard:lockdown":        "the CRM is locked down",
	"not-found":             "there is none, or none that they may see",
	"check-failed":          "it could not be decided",
	"error":                 "it did not succeed; the log may say why",
	"panic":                 "it broke off; the log says why",
	"dismissal-finished":    "what a dismissal had left",
	turnJob + ":begin":      "the keys are turned",
	reencryptJob + ":begin": "the clients are reencrypted",
}

// What stands before the number, the login or the version in a code.
var codeBeginnings = []struct{ code, words string }{
	{"rbac:", "no right to it: "},
	{"quota:soft-norm:", "told after "},
	{"quota:hard-norm:", "stopped at "},
	{"proof:", "entry "},
	{"entry:", "entry "},
	{"why:", "entry "},
	{"leaver:", "review of "},
	{"version:", "version "},
	{"deputy:", "deputy: "},
	{"end-deputy:", "deputy no more: "},
}

// reasonWords says what the reason of an entry means. One that it does not know it leaves.
func reasonWords(text string) string {
	if words, ok := codeWords[text]; ok {
		return words
	}
	if between, ok := strings.CutPrefix(text, "handover:"); ok {
		if from, to, two := strings.Cut(between, ":"); two {
			return "contacts of " + from + " go to " + to
		}
	}
	for _, known := range slices.Concat(revealReasons, exportReasons, forgetReasons) {
		if more, ok := strings.CutPrefix(text, known.Code); ok && (more == "" || more[0] == ':') {
			label, _, _ := strings.Cut(known.Label, " (")
			return label + strings.Replace(more, ":", ", for ", 1)
		}
	}
	for _, known := range codeBeginnings {
		if rest, ok := strings.CutPrefix(text, known.code); ok {
			return known.words + strings.NewReplacer("-", " ", ":", ", ").Replace(rest)
		}
	}
	return text
}

// fieldWords are what an entry is about, such as the counter of a norm.
func fieldWords(ev crmguard.Event) string {
	fields := strings.Join(ev.Fields, ", ")
	if noun, ok := normNouns[fields]; ok && ev.Resource.Kind == alertKind {
		return noun
	}
	return fields
}

// lockdownWords is what turning the emergency switch is called.
func lockdownWords(ev crmguard.Event) string {
	switch {
	case ev.Resource.Kind != guard.LockdownKind:
	case ev.Action == crmguard.Revoke:
		return "lock the CRM down"
	case ev.Action == crmguard.Grant:
		return "reopen the CRM"
	}
	return ""
}

package auditsql

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Grants returns the statements, for PostgreSQL, that let two roles share a log, whose
// tables are there, in the current schema. The role app is that of processes which call
// [audit.OpenInbox]: it puts entries into the inbox and reads. The role sequencer is
// that of the process that has the signing key and calls [audit.New]: it adds to the
// log, takes out of the inbox, and removes old entries when it prunes. Neither of them
// changes an entry or a checkpoint.
//
// Whoever takes over the application then has no way to the log but the inbox, where
// entries are sealed and counted. Run the statements, as the owner of the tables, again
// after an update of this module, since it may have new tables. Roles, and their right
// to use the schema, are made before.
func Grants(app, sequencer string, o *Options) (string, error) {
	if app == "" || sequencer == "" || app == sequencer {
		return "", errors.New("auditsql: two different roles are needed")
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	prefix := cmp.Or(opts.TablePrefix, "crmguard_")
	var b strings.Builder
	grant := func(rights, role string, tables ...string) {
		for _, table := range tables {
			fmt.Fprintf(&b, "GRANT %s ON %s TO %s;\n", rights, quoted(prefix+table), quoted(role))
		}
	}
	read := []string{"migrations", "audit_logs", "audit_checkpoints", "audit_account", "audit_tail", "audit_pruned", "audit_nodes", "audit_entries", "audit_clients", "audit_pseudonyms", "audit_inbox", "audit_beats"}
	grant("SELECT", app, read...)
	grant("SELECT", sequencer, read...)
	grant("INSERT", app, "audit_inbox", "audit_beats")
	grant("INSERT, DELETE", app, "audit_pseudonyms") // no evidence; they are made, and die, with what is sealed
	grant("INSERT", sequencer, "audit_checkpoints", "audit_inbox", "audit_beats")
	grant("INSERT, UPDATE", sequencer, "audit_account", "audit_tail", "audit_pruned")
	grant("INSERT, DELETE", sequencer, "audit_entries", "audit_clients", "audit_pseudonyms", "audit_nodes")
	grant("DELETE", sequencer, "audit_inbox", "audit_beats")
	return b.String(), nil
}

// quoted is an SQL identifier.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

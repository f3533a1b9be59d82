-- +goose Up
-- The address from which somebody acted repeats what the record says, like the other
-- columns.
ALTER TABLE crmguard_audit_entries ADD COLUMN addr TEXT NOT NULL DEFAULT '';

CREATE INDEX crmguard_audit_by_addr ON crmguard_audit_entries (log, tenant, addr, seq);

-- Keyed pseudonyms of private values, to find entries by. They are no evidence, are
-- made anew when their keys rotate, and are deleted with the client.
CREATE TABLE crmguard_audit_pseudonyms (
	log       TEXT     NOT NULL,
	tenant    TEXT     NOT NULL,
	name      TEXT     NOT NULL,
	pseudonym BYTEA    NOT NULL,
	event     TEXT     NOT NULL,
	outcome   SMALLINT NOT NULL,
	client    TEXT     NOT NULL,
	PRIMARY KEY (log, tenant, name, pseudonym, event, outcome, client)
);

CREATE INDEX crmguard_audit_pseudonyms_of_event ON crmguard_audit_pseudonyms (log, tenant, event, outcome);

CREATE INDEX crmguard_audit_pseudonyms_of_client ON crmguard_audit_pseudonyms (log, tenant, client);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('audit', 2, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'audit' AND version = 2;
DROP TABLE crmguard_audit_pseudonyms;
DROP INDEX crmguard_audit_by_addr;
ALTER TABLE crmguard_audit_entries DROP COLUMN addr;

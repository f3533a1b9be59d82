-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

CREATE TABLE crmguard_audit_logs (
	log TEXT  PRIMARY KEY,
	id  BYTEA NOT NULL
);

-- Only record is hashed. The columns from tenant to occurred are for finding, and
-- repeat what the record says.
CREATE TABLE crmguard_audit_entries (
	log      TEXT     NOT NULL,
	seq      BIGINT   NOT NULL CHECK (seq BETWEEN 0 AND 4611686018427387904),
	tenant   TEXT     NOT NULL,
	event    TEXT     NOT NULL,
	outcome  SMALLINT NOT NULL,
	subject  TEXT     NOT NULL,
	kind     TEXT     NOT NULL,
	object   TEXT     NOT NULL,
	action   TEXT     NOT NULL,
	occurred BIGINT   NOT NULL,
	chain    BYTEA    NOT NULL,
	hashes   BYTEA    NOT NULL,
	record   BYTEA    NOT NULL,
	PRIMARY KEY (log, seq)
);

CREATE UNIQUE INDEX crmguard_audit_once ON crmguard_audit_entries (log, tenant, event, outcome);

CREATE INDEX crmguard_audit_by_tenant ON crmguard_audit_entries (log, tenant, seq);

CREATE INDEX crmguard_audit_by_subject ON crmguard_audit_entries (log, tenant, subject, seq);

CREATE INDEX crmguard_audit_by_object ON crmguard_audit_entries (log, tenant, kind, object, seq);

CREATE INDEX crmguard_audit_by_action ON crmguard_audit_entries (log, tenant, action, seq);

CREATE TABLE crmguard_audit_clients (
	log    TEXT   NOT NULL,
	tenant TEXT   NOT NULL,
	client TEXT   NOT NULL,
	seq    BIGINT NOT NULL CHECK (seq BETWEEN 0 AND 4611686018427387904),
	PRIMARY KEY (log, tenant, client, seq)
);

CREATE INDEX crmguard_audit_clients_of ON crmguard_audit_clients (log, seq);

CREATE TABLE crmguard_audit_checkpoints (
	log  TEXT   NOT NULL,
	size BIGINT NOT NULL CHECK (size BETWEEN 0 AND 4611686018427387904),
	note BYTEA  NOT NULL,
	PRIMARY KEY (log, size)
);

-- Entries written in the host's transactions, until they are chained.
CREATE TABLE crmguard_audit_inbox (
	log     TEXT     NOT NULL,
	since   BIGINT   NOT NULL,
	tenant  TEXT     NOT NULL,
	event   TEXT     NOT NULL,
	outcome SMALLINT NOT NULL,
	body    BYTEA    NOT NULL,
	PRIMARY KEY (log, tenant, event, outcome)
);

CREATE INDEX crmguard_audit_inbox_order ON crmguard_audit_inbox (log, since, tenant, event, outcome);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('audit', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'audit' AND version = 1;
DROP TABLE crmguard_audit_inbox;
DROP TABLE crmguard_audit_checkpoints;
DROP TABLE crmguard_audit_clients;
DROP TABLE crmguard_audit_entries;
DROP TABLE crmguard_audit_logs;

-- +goose Up
-- Texts are compared as bytes (COLLATE "C"): they are looked up, not sorted for people.
-- That is faster, and no update of the system's collations breaks an index. Indexes
-- begin with the column that tells most rows apart; those that end with seq hold
-- nothing twice.
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

CREATE TABLE crmguard_audit_logs (
	log TEXT COLLATE "C" PRIMARY KEY,
	id  BYTEA NOT NULL
);

-- Only record is hashed. The columns from tenant to occurred are for finding, and
-- repeat what the record says.
CREATE TABLE crmguard_audit_entries (
	log      TEXT COLLATE "C" NOT NULL,
	seq      BIGINT           NOT NULL CHECK (seq BETWEEN 0 AND 4611686018427387904),
	tenant   TEXT COLLATE "C" NOT NULL,
	event    TEXT COLLATE "C" NOT NULL,
	outcome  SMALLINT         NOT NULL,
	subject  TEXT COLLATE "C" NOT NULL,
	kind     TEXT COLLATE "C" NOT NULL,
	object   TEXT COLLATE "C" NOT NULL,
	action   TEXT COLLATE "C" NOT NULL,
	addr     TEXT COLLATE "C" NOT NULL DEFAULT '',
	occurred BIGINT           NOT NULL,
	hashes   BYTEA            NOT NULL,
	record   BYTEA            NOT NULL,
	PRIMARY KEY (log, seq)
);

CREATE UNIQUE INDEX crmguard_audit_once ON crmguard_audit_entries (event, tenant, outcome, log);

CREATE INDEX crmguard_audit_by_tenant ON crmguard_audit_entries (tenant, log, seq) WITH (deduplicate_items = off);

CREATE INDEX crmguard_audit_by_subject ON crmguard_audit_entries (subject, tenant, log, seq) WITH (deduplicate_items = off);

CREATE INDEX crmguard_audit_by_object ON crmguard_audit_entries (object, kind, tenant, log, seq) WITH (deduplicate_items = off);

CREATE INDEX crmguard_audit_by_action ON crmguard_audit_entries (action, tenant, log, seq) WITH (deduplicate_items = off);

CREATE INDEX crmguard_audit_by_addr ON crmguard_audit_entries (addr, tenant, log, seq) WITH (deduplicate_items = off);

CREATE TABLE crmguard_audit_clients (
	log    TEXT COLLATE "C" NOT NULL,
	tenant TEXT COLLATE "C" NOT NULL,
	client TEXT COLLATE "C" NOT NULL,
	seq    BIGINT           NOT NULL CHECK (seq BETWEEN 0 AND 4611686018427387904),
	PRIMARY KEY (client, tenant, log, seq)
);

CREATE INDEX crmguard_audit_clients_of ON crmguard_audit_clients (log, seq);

-- Keyed pseudonyms of private values, to find entries by. They are no evidence, are
-- made anew when their keys rotate, and are deleted with the client.
CREATE TABLE crmguard_audit_pseudonyms (
	log       TEXT COLLATE "C" NOT NULL,
	tenant    TEXT COLLATE "C" NOT NULL,
	name      TEXT COLLATE "C" NOT NULL,
	pseudonym BYTEA            NOT NULL,
	event     TEXT COLLATE "C" NOT NULL,
	outcome   SMALLINT         NOT NULL,
	client    TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (log, tenant, name, pseudonym, event, outcome, client)
);

CREATE INDEX crmguard_audit_pseudonyms_of_event ON crmguard_audit_pseudonyms (event, tenant, outcome, log);

CREATE INDEX crmguard_audit_pseudonyms_of_client ON crmguard_audit_pseudonyms (client, tenant, log);

CREATE TABLE crmguard_audit_checkpoints (
	log  TEXT COLLATE "C" NOT NULL,
	size BIGINT           NOT NULL CHECK (size BETWEEN 0 AND 4611686018427387904),
	note BYTEA            NOT NULL,
	PRIMARY KEY (log, size)
);

-- A MAC over the newest entries: one row per log.
CREATE TABLE crmguard_audit_tail (
	log  TEXT COLLATE "C" PRIMARY KEY,
	body BYTEA NOT NULL
);

-- Entries written in the host's transactions, until they are chained.
CREATE TABLE crmguard_audit_inbox (
	log     TEXT COLLATE "C" NOT NULL,
	since   BIGINT           NOT NULL,
	tenant  TEXT COLLATE "C" NOT NULL,
	event   TEXT COLLATE "C" NOT NULL,
	outcome SMALLINT         NOT NULL,
	body    BYTEA            NOT NULL,
	PRIMARY KEY (event, tenant, outcome, log)
);

CREATE INDEX crmguard_audit_inbox_order ON crmguard_audit_inbox (log, since);

-- What processes say that they put into the inbox, and what became of it.
CREATE TABLE crmguard_audit_beats (
	log  TEXT COLLATE "C" NOT NULL,
	node TEXT COLLATE "C" NOT NULL,
	beat BIGINT           NOT NULL,
	body BYTEA            NOT NULL,
	PRIMARY KEY (log, node, beat)
);

-- What came of it: one row per log.
CREATE TABLE crmguard_audit_account (
	log     TEXT COLLATE "C" PRIMARY KEY,
	version BIGINT NOT NULL,
	body    BYTEA  NOT NULL
);

-- What was removed by retention: one signed statement for each log.
CREATE TABLE crmguard_audit_pruned (
	log  TEXT COLLATE "C" PRIMARY KEY,
	size BIGINT NOT NULL CHECK (size BETWEEN 0 AND 4611686018427387904),
	note BYTEA  NOT NULL
);

-- Hashes of the tree over rows that were removed.
CREATE TABLE crmguard_audit_nodes (
	log   TEXT COLLATE "C" NOT NULL,
	seq   BIGINT           NOT NULL CHECK (seq BETWEEN 0 AND 4611686018427387904),
	level SMALLINT         NOT NULL CHECK (level BETWEEN 0 AND 62),
	hash  BYTEA            NOT NULL,
	PRIMARY KEY (log, seq, level)
);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('audit', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'audit' AND version = 1;
DROP TABLE crmguard_audit_nodes;
DROP TABLE crmguard_audit_pruned;
DROP TABLE crmguard_audit_account;
DROP TABLE crmguard_audit_beats;
DROP TABLE crmguard_audit_inbox;
DROP TABLE crmguard_audit_tail;
DROP TABLE crmguard_audit_checkpoints;
DROP TABLE crmguard_audit_pseudonyms;
DROP TABLE crmguard_audit_clients;
DROP TABLE crmguard_audit_entries;
DROP TABLE crmguard_audit_logs;

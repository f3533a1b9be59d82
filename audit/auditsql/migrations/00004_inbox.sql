-- +goose Up
-- What processes say that they put into the inbox, and what became of it.
CREATE TABLE crmguard_audit_beats (
	log  TEXT   NOT NULL,
	node TEXT   NOT NULL,
	beat BIGINT NOT NULL,
	body BYTEA  NOT NULL,
	PRIMARY KEY (log, node, beat)
);

-- What came of it: one row per log.
CREATE TABLE crmguard_audit_account (
	log     TEXT   PRIMARY KEY,
	version BIGINT NOT NULL,
	body    BYTEA  NOT NULL
);

-- A MAC over the newest entries: one row per log.
CREATE TABLE crmguard_audit_tail (
	log  TEXT  PRIMARY KEY,
	body BYTEA NOT NULL
);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('audit', 4, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'audit' AND version = 4;
DROP TABLE crmguard_audit_tail;
DROP TABLE crmguard_audit_account;
DROP TABLE crmguard_audit_beats;

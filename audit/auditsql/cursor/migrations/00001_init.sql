-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

-- How far each feed of an export has come.
CREATE TABLE crmguard_audit_cursors (
	name TEXT   PRIMARY KEY,
	id   BYTEA  NOT NULL,
	seq  BIGINT NOT NULL
);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('audit-cursor', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'audit-cursor' AND version = 1;
DROP TABLE crmguard_audit_cursors;

-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

-- Rows are only ever added. The application's role needs INSERT and SELECT.
CREATE TABLE crmguard_audit_anchors (
	log    TEXT   NOT NULL,
	size   BIGINT NOT NULL,
	digest BYTEA  NOT NULL,
	kept   BIGINT NOT NULL,
	note   BYTEA  NOT NULL,
	PRIMARY KEY (log, size, digest, kept)
);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('audit-anchor', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'audit-anchor' AND version = 1;
DROP TABLE crmguard_audit_anchors;

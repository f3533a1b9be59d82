-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);
CREATE TABLE crmguard_keys (
	tenant       TEXT     NOT NULL,
	name         TEXT     NOT NULL,
	version      BIGINT   NOT NULL,
	state        SMALLINT NOT NULL,
	wrapped      BYTEA,
	note         BYTEA,
	messages     BIGINT   NOT NULL,
	created_at   BIGINT   NOT NULL,
	closed_at    BIGINT   NOT NULL,
	destroyed_at BIGINT   NOT NULL,
	PRIMARY KEY (tenant, name, version)
);
CREATE INDEX crmguard_keys_closing ON crmguard_keys (closed_at) WHERE state = 2;
CREATE INDEX crmguard_keys_removed ON crmguard_keys (tenant) WHERE state = 4 AND wrapped IS NOT NULL;
CREATE TABLE crmguard_keys_revision (
	id       SMALLINT PRIMARY KEY,
	revision BIGINT   NOT NULL
);
INSERT INTO crmguard_keys_revision (id, revision) VALUES (1, 0);
INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('keys', 1, 0);
-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'keys' AND version = 1;
DROP TABLE crmguard_keys_revision;
DROP TABLE crmguard_keys;

-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);
CREATE TABLE crmguard_index (
	tenant     TEXT     NOT NULL,
	kind       TEXT     NOT NULL,
	record     TEXT     NOT NULL,
	field      TEXT     NOT NULL,
	index_name TEXT     NOT NULL,
	version    BIGINT   NOT NULL,
	client     TEXT     NOT NULL,
	value      BYTEA    NOT NULL,
	is_unique  SMALLINT NOT NULL,
	PRIMARY KEY (tenant, kind, record, field, index_name, version)
);
CREATE INDEX crmguard_index_value ON crmguard_index (tenant, kind, field, index_name, value);
CREATE UNIQUE INDEX crmguard_index_unique ON crmguard_index (tenant, kind, field, index_name, version, value) WHERE is_unique = 1;
CREATE INDEX crmguard_index_client ON crmguard_index (tenant, client);
INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('index', 1, 0);
-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'index' AND version = 1;
DROP TABLE crmguard_index;

-- +goose Up
CREATE TABLE crmguard_keys_migrating (
	tenant TEXT     NOT NULL,
	kind   TEXT     NOT NULL,
	field  TEXT     NOT NULL,
	state  SMALLINT NOT NULL,
	PRIMARY KEY (tenant, kind, field)
);
CREATE TABLE crmguard_keys_pending (
	tenant TEXT NOT NULL,
	kind   TEXT NOT NULL,
	field  TEXT NOT NULL,
	record TEXT NOT NULL,
	mac    BYTEA NOT NULL,
	PRIMARY KEY (tenant, kind, field, record)
);
INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('keys', 2, 0);
-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'keys' AND version = 2;
DROP TABLE crmguard_keys_pending;
DROP TABLE crmguard_keys_migrating;

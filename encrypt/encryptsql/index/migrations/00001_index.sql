-- +goose Up
CREATE TABLE crmguard_index (
	tenant  TEXT   NOT NULL,
	kind    TEXT   NOT NULL,
	record  TEXT   NOT NULL,
	field   TEXT   NOT NULL,
	client  TEXT   NOT NULL,
	version BIGINT NOT NULL,
	value   BYTEA  NOT NULL,
	PRIMARY KEY (tenant, kind, record, field)
);
CREATE INDEX crmguard_index_value ON crmguard_index (tenant, kind, field, value);
CREATE INDEX crmguard_index_client ON crmguard_index (tenant, client);
-- +goose Down
DROP TABLE crmguard_index;

-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

CREATE TABLE crmguard_mfa_persons (
	tenant   TEXT   NOT NULL,
	person   TEXT   NOT NULL,
	version  BIGINT NOT NULL,
	mac      BYTEA  NOT NULL,
	empty_at BIGINT NOT NULL,
	last_at  BIGINT NOT NULL,
	PRIMARY KEY (tenant, person)
);

CREATE TABLE crmguard_mfa_factors (
	tenant     TEXT     NOT NULL,
	person     TEXT     NOT NULL,
	id         TEXT     NOT NULL,
	kind       TEXT     NOT NULL,
	active     SMALLINT NOT NULL,
	last_step  BIGINT   NOT NULL,
	created_at BIGINT   NOT NULL,
	sealed     BYTEA    NOT NULL,
	PRIMARY KEY (tenant, person, id)
);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('mfa', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'mfa' AND version = 1;
DROP TABLE crmguard_mfa_factors;
DROP TABLE crmguard_mfa_persons;

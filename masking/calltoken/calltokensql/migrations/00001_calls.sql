-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

CREATE TABLE crmguard_calls (
	tenant   TEXT     NOT NULL,
	id       TEXT     NOT NULL,
	person   TEXT     NOT NULL,
	state    SMALLINT NOT NULL,
	begun_at BIGINT   NOT NULL,
	PRIMARY KEY (tenant, id)
);

CREATE INDEX crmguard_calls_begun ON crmguard_calls (tenant, begun_at);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('calltoken', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'calltoken' AND version = 1;
DROP TABLE crmguard_calls;

-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

CREATE TABLE crmguard_session_persons (
	tenant TEXT     NOT NULL,
	person TEXT     NOT NULL,
	closed SMALLINT NOT NULL,
	epoch  BIGINT   NOT NULL,
	mac    BYTEA    NOT NULL,
	PRIMARY KEY (tenant, person)
);

CREATE TABLE crmguard_sessions (
	id               TEXT     NOT NULL PRIMARY KEY,
	tenant           TEXT     NOT NULL,
	person           TEXT     NOT NULL,
	on_behalf_of     TEXT     NOT NULL,
	kind             SMALLINT NOT NULL,
	assurance        SMALLINT NOT NULL,
	authenticated_at BIGINT   NOT NULL,
	device           TEXT     NOT NULL,
	addr             TEXT     NOT NULL,
	scopes           TEXT,
	started_at       BIGINT   NOT NULL,
	used_at          BIGINT   NOT NULL,
	end_at           BIGINT   NOT NULL,
	epoch            BIGINT   NOT NULL,
	verifier         BYTEA    NOT NULL
);

CREATE INDEX crmguard_sessions_person ON crmguard_sessions (tenant, person, started_at, id);

CREATE INDEX crmguard_sessions_end ON crmguard_sessions (end_at);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('session', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'session' AND version = 1;
DROP TABLE crmguard_sessions;
DROP TABLE crmguard_session_persons;

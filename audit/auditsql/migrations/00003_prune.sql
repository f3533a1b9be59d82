-- +goose Up
-- What was removed by retention: one signed statement for each log.
CREATE TABLE crmguard_audit_pruned (
	log  TEXT   PRIMARY KEY,
	size BIGINT NOT NULL CHECK (size BETWEEN 0 AND 4611686018427387904),
	note BYTEA  NOT NULL
);

-- Hashes of the tree over rows that were removed.
CREATE TABLE crmguard_audit_nodes (
	log   TEXT     NOT NULL,
	seq   BIGINT   NOT NULL CHECK (seq BETWEEN 0 AND 4611686018427387904),
	level SMALLINT NOT NULL CHECK (level BETWEEN 0 AND 62),
	hash  BYTEA    NOT NULL,
	PRIMARY KEY (log, seq, level)
);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('audit', 3, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'audit' AND version = 3;
DROP TABLE crmguard_audit_nodes;
DROP TABLE crmguard_audit_pruned;

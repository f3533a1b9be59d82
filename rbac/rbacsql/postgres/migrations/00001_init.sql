-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);
CREATE TABLE IF NOT EXISTS crmguard_rule (
	id    BIGSERIAL PRIMARY KEY,
	ptype TEXT NOT NULL DEFAULT '',
	v0    TEXT NOT NULL DEFAULT '',
	v1    TEXT NOT NULL DEFAULT '',
	v2    TEXT NOT NULL DEFAULT '',
	v3    TEXT NOT NULL DEFAULT '',
	v4    TEXT NOT NULL DEFAULT '',
	v5    TEXT NOT NULL DEFAULT ''
);
-- A table of another adapter may have a row twice; once means the same.
DELETE FROM crmguard_rule WHERE id NOT IN (SELECT MIN(id) FROM crmguard_rule
	GROUP BY COALESCE(ptype, ''), COALESCE(v0, ''), COALESCE(v1, ''), COALESCE(v2, ''), COALESCE(v3, ''), COALESCE(v4, ''), COALESCE(v5, ''));
CREATE UNIQUE INDEX IF NOT EXISTS crmguard_rule_row ON crmguard_rule (ptype, v0, v1, v2, v3, v4, v5);
INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('rbac', 1, 0);
-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'rbac' AND version = 1;
DROP TABLE crmguard_rule;

-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_rule (
	id    INTEGER PRIMARY KEY AUTOINCREMENT,
	ptype TEXT NOT NULL DEFAULT '',
	v0    TEXT NOT NULL DEFAULT '',
	v1    TEXT NOT NULL DEFAULT '',
	v2    TEXT NOT NULL DEFAULT '',
	v3    TEXT NOT NULL DEFAULT '',
	v4    TEXT NOT NULL DEFAULT '',
	v5    TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS crmguard_rule_row ON crmguard_rule (ptype, v0, v1, v2, v3, v4, v5);
-- +goose Down
DROP TABLE crmguard_rule;

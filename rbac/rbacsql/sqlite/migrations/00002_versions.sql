-- +goose Up
CREATE TABLE crmguard_version (
	document TEXT NOT NULL DEFAULT 'policy',
	number  INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	tenant  TEXT    NOT NULL,
	author  TEXT    NOT NULL,
	reason  TEXT    NOT NULL,
	digest  TEXT    NOT NULL,
	whole   INTEGER NOT NULL,
	added   TEXT    NOT NULL,
	removed TEXT    NOT NULL,
	changes TEXT    NOT NULL,
	mac     BLOB    NOT NULL,
	PRIMARY KEY (document, number)
);
INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('rbac', 2, 0);
-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'rbac' AND version = 2;
DROP TABLE crmguard_version;

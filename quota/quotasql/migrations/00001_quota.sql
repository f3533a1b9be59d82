-- +goose Up
CREATE TABLE IF NOT EXISTS crmguard_migrations (
	store      TEXT   NOT NULL,
	version    BIGINT NOT NULL,
	applied_at BIGINT NOT NULL,
	PRIMARY KEY (store, version)
);

CREATE TABLE crmguard_quota_days (
	tenant TEXT   NOT NULL PRIMARY KEY,
	day    BIGINT NOT NULL
);

CREATE TABLE crmguard_quota_counts (
	tenant  TEXT     NOT NULL,
	day     BIGINT   NOT NULL,
	person  TEXT     NOT NULL,
	counter TEXT     NOT NULL,
	n       BIGINT   NOT NULL,
	fired   SMALLINT NOT NULL,
	PRIMARY KEY (tenant, day, person, counter)
);

CREATE TABLE crmguard_quota_items (
	tenant  TEXT   NOT NULL,
	day     BIGINT NOT NULL,
	person  TEXT   NOT NULL,
	counter TEXT   NOT NULL,
	item    TEXT   NOT NULL,
	holder  BIGINT NOT NULL,
	PRIMARY KEY (tenant, day, person, counter, item)
);

INSERT INTO crmguard_migrations (store, version, applied_at) VALUES ('quota', 1, 0);

-- +goose Down
DELETE FROM crmguard_migrations WHERE store = 'quota' AND version = 1;
DROP TABLE crmguard_quota_items;
DROP TABLE crmguard_quota_counts;
DROP TABLE crmguard_quota_days;

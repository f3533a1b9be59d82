-- +goose Up
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

-- +goose Down
DROP TABLE crmguard_quota_items;
DROP TABLE crmguard_quota_counts;
DROP TABLE crmguard_quota_days;

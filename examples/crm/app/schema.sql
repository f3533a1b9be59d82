-- What only the CRM itself knows. The journal, sessions, search index and policy
-- have tables of their own, made by their packages. Columns with personal data
-- are sealed; NULL is no value.
--
-- This is SQLite's text; postgres.go names the two words that PostgreSQL writes in
-- another way. Whole numbers are BIGINT, flags BOOLEAN, times microseconds.

CREATE TABLE IF NOT EXISTS settings (
	name  TEXT PRIMARY KEY,
	value BLOB NOT NULL
);

CREATE TABLE IF NOT EXISTS units (
	id     TEXT PRIMARY KEY,
	name   TEXT NOT NULL UNIQUE,
	parent TEXT REFERENCES units (id)
);

CREATE TABLE IF NOT EXISTS accounts (
	id         TEXT PRIMARY KEY,               -- the login
	kind       SMALLINT NOT NULL,              -- crmguard.SubjectKind
	title      TEXT NOT NULL,
	unit       TEXT NOT NULL REFERENCES units (id),
	head       BOOLEAN NOT NULL DEFAULT FALSE, -- of that unit
	demo       BOOLEAN NOT NULL DEFAULT FALSE, -- works on loopback only
	password   BLOB,                           -- sealed; NULL cannot sign in with a password
	demo_app   BLOB,                           -- sealed: the app of a demo account, for `crm code`
	created_at BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS contacts (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT, -- order of the list; never used again
	tenant     TEXT NOT NULL,
	id         TEXT NOT NULL UNIQUE,              -- random; also the client whose key seals the row
	owner      TEXT NOT NULL DEFAULT '',
	unit       TEXT NOT NULL REFERENCES units (id),
	country    TEXT NOT NULL DEFAULT '',
	version    BIGINT NOT NULL DEFAULT 1,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	erased_at  BIGINT NOT NULL DEFAULT 0,
	import_key BLOB UNIQUE,                       -- keyed digest of the imported row
	name       BLOB,
	phone      BLOB,
	email      BLOB,
	company    BLOB,
	city       BLOB,
	note       BLOB
);

CREATE INDEX IF NOT EXISTS contacts_owner ON contacts (owner, seq);
CREATE INDEX IF NOT EXISTS contacts_unit ON contacts (unit, seq);

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

-- The ledger of erasures, as their receipts with their MACs. It lies outside of the
-- key store, so that an older copy of that brings nobody back.
CREATE TABLE IF NOT EXISTS receipts (
	seq      INTEGER PRIMARY KEY AUTOINCREMENT,
	document BLOB NOT NULL
);

-- Files with clients' data that left the CRM. The receipt of a forgotten client
-- names those that may hold it.
CREATE TABLE IF NOT EXISTS copies (
	id       TEXT PRIMARY KEY,
	contact  TEXT NOT NULL DEFAULT '', -- whose data it holds; '': of many
	what     TEXT NOT NULL,
	person   TEXT NOT NULL,            -- who took it
	taken_at BIGINT NOT NULL
);

-- Files of a contact: the name sealed as a field, the content encrypted as a whole
-- and cut into pieces.
CREATE TABLE IF NOT EXISTS attachments (
	id         TEXT PRIMARY KEY,       -- random
	contact    TEXT NOT NULL,          -- the client whose key seals it
	name       BLOB NOT NULL,
	size       BIGINT NOT NULL,        -- of the file itself
	added_by   TEXT NOT NULL,
	created_at BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS attachments_contact ON attachments (contact, created_at);

CREATE TABLE IF NOT EXISTS attachment_pieces (
	attachment TEXT NOT NULL REFERENCES attachments (id) ON DELETE CASCADE,
	n          BIGINT NOT NULL,
	content    BLOB NOT NULL,
	PRIMARY KEY (attachment, n)
);

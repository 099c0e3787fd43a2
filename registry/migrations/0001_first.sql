-- The configuration as a history: what is live, what each revision changed, and the digests that prove both.
-- Times are microseconds since 1970-01-01 UTC and only for people: no decision goes by them.

-- One row: which store this is, and which life of it.
CREATE TABLE store (
    singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
    store_id TEXT NOT NULL,
    incarnation_number INTEGER NOT NULL CHECK (incarnation_number >= 1),
    incarnation_id TEXT NOT NULL
) STRICT;

-- Every revision, from 1, without holes.
CREATE TABLE revisions (
    revision INTEGER NOT NULL PRIMARY KEY CHECK (revision >= 1),
    chain BLOB NOT NULL CHECK (length(chain) = 32),
    config_state BLOB NOT NULL CHECK (length(config_state) = 32),
    router_state BLOB NOT NULL CHECK (length(router_state) = 32),
    actor TEXT NOT NULL,
    commit_time INTEGER NOT NULL
) STRICT;

-- The live resources, with the bytes that are streamed and hashed.
CREATE TABLE resources (
    name TEXT NOT NULL PRIMARY KEY,
    create_revision INTEGER NOT NULL REFERENCES revisions (revision),
    revision INTEGER NOT NULL REFERENCES revisions (revision),
    type_url TEXT NOT NULL,
    value BLOB NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL
) STRICT;

-- What each revision changed. The digest of the item as it was left.
CREATE TABLE changes (
    revision INTEGER NOT NULL REFERENCES revisions (revision),
    name TEXT NOT NULL,
    item BLOB NOT NULL CHECK (length(item) = 32),
    PRIMARY KEY (revision, name)
) STRICT, WITHOUT ROWID;

-- The API tokens. A model whose token was never set, cleared or dropped has no row.
CREATE TABLE credentials (
    model TEXT NOT NULL PRIMARY KEY REFERENCES resources (name),
    state TEXT NOT NULL CHECK (state IN ('none', 'set', 'dropped')),
    credential_id TEXT,
    origins TEXT, -- separated by blanks
    token TEXT,
    update_time INTEGER NOT NULL,
    CHECK ((state = 'set') = (credential_id IS NOT NULL AND origins IS NOT NULL AND token IS NOT NULL))
) STRICT;

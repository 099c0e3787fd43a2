-- The lives of the store after its first, each with the jump by which it began. Revisions and changes are those of the
-- present life alone.
CREATE TABLE lives (
    number INTEGER NOT NULL PRIMARY KEY CHECK (number >= 2),
    incarnation_id TEXT NOT NULL,
    store_id TEXT NOT NULL,
    first_revision INTEGER NOT NULL CHECK (first_revision > parent_revision),
    -- The newest revision of the life before, and the chain up to it.
    parent_revision INTEGER NOT NULL CHECK (parent_revision >= 0),
    parent_chain BLOB NOT NULL CHECK (length(parent_chain) = 32),
    cause TEXT NOT NULL CHECK (cause IN ('restore', 'accept-history')),
    begin_time INTEGER NOT NULL
) STRICT;

-- Resources can be deleted, old history is cut off, and writes can be repeated by a request id.

-- Resources outlive the revisions that made them: no reference to those that may be cut off.
CREATE TABLE new_resources (
    name TEXT NOT NULL PRIMARY KEY,
    create_revision INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    type_url TEXT NOT NULL,
    value BLOB NOT NULL,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL
) STRICT;
INSERT INTO new_resources
SELECT name, create_revision, revision, type_url, value, create_time, update_time FROM resources;

-- As before; the models are those of the new table.
CREATE TABLE new_credentials (
    model TEXT NOT NULL PRIMARY KEY REFERENCES new_resources (name),
    state TEXT NOT NULL CHECK (state IN ('none', 'set', 'dropped')),
    credential_id TEXT,
    origins TEXT, -- separated by blanks
    token TEXT,
    update_time INTEGER NOT NULL,
    CHECK ((state = 'set') = (credential_id IS NOT NULL AND origins IS NOT NULL AND token IS NOT NULL))
) STRICT;
INSERT INTO new_credentials SELECT model, state, credential_id, origins, token, update_time FROM credentials;

-- Without holes from the oldest to the newest. Below the floor, the oldest revision that a follower can resume from, only
-- the chain is kept, to tell a cursor of another history from an old one.
CREATE TABLE new_revisions (
    revision INTEGER NOT NULL PRIMARY KEY CHECK (revision >= 1),
    chain BLOB NOT NULL CHECK (length(chain) = 32),
    config_state BLOB CHECK (length(config_state) = 32),
    router_state BLOB CHECK (length(router_state) = 32),
    actor TEXT NOT NULL,
    commit_time INTEGER NOT NULL,
    CHECK ((config_state IS NULL) = (router_state IS NULL))
) STRICT;
INSERT INTO new_revisions SELECT revision, chain, config_state, router_state, actor, commit_time FROM revisions;

-- What each revision after the floor changed. The digest of the item as it was left; none: it was deleted.
CREATE TABLE new_changes (
    revision INTEGER NOT NULL REFERENCES new_revisions (revision),
    name TEXT NOT NULL,
    item BLOB CHECK (length(item) = 32),
    PRIMARY KEY (revision, name)
) STRICT, WITHOUT ROWID;
INSERT INTO new_changes SELECT revision, name, item FROM changes;

DROP TABLE credentials;
DROP TABLE changes;
DROP TABLE resources;
DROP TABLE revisions;
ALTER TABLE new_resources RENAME TO resources;
ALTER TABLE new_credentials RENAME TO credentials;
ALTER TABLE new_revisions RENAME TO revisions;
ALTER TABLE new_changes RENAME TO changes;

-- The key of the hashes in `requests`: random, made at the next start.
ALTER TABLE store ADD COLUMN request_key BLOB CHECK (length(request_key) = 32);

-- The newest writes that had a request id, with their answers. `content` is a keyed hash of the request.
CREATE TABLE requests (
    sequence INTEGER NOT NULL PRIMARY KEY,
    actor TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    content BLOB NOT NULL CHECK (length(content) = 32),
    answer BLOB NOT NULL,
    revision INTEGER NOT NULL,
    incarnation_id TEXT NOT NULL,
    UNIQUE (actor, method, request_id)
) STRICT;

-- What a change superseded is kept with it: history can be shown, and undone.
--
-- Each version of a resource stands in one place: the live one in `resources`, an earlier one in the change that ended it.
-- Changes that were made before this have nothing to tell, so history begins anew here: the floor moves to the newest
-- revision, and a follower whose cursor is older gets a snapshot once. The chain stays, so that a fork is still told from
-- an old cursor. Where the newest revision is the first, its changes stay: nothing was before them.
-- What each revision after the floor changed. `item`: the digest of the item as it was left; none: it was deleted.
-- `before_…`: the item that this ended; none: there was none.
CREATE TABLE new_changes (
    revision INTEGER NOT NULL REFERENCES revisions (revision),
    name TEXT NOT NULL,
    item BLOB CHECK (length(item) = 32),
    before_type_url TEXT,
    before_create_revision INTEGER,
    before_revision INTEGER,
    before_value BLOB,
    PRIMARY KEY (revision, name),
    CHECK ((before_value IS NULL) = (before_type_url IS NULL)),
    CHECK ((before_value IS NULL) = (before_create_revision IS NULL)),
    CHECK ((before_value IS NULL) = (before_revision IS NULL))
) STRICT;
INSERT INTO new_changes (revision, name, item)
SELECT revision, name, item FROM changes WHERE (SELECT MAX(revision) FROM revisions) = 1;
DROP TABLE changes;
ALTER TABLE new_changes RENAME TO changes;

-- What became of a version is what the next change of the same name ended.
CREATE INDEX changes_of_name ON changes (name, revision);

UPDATE revisions SET config_state = NULL, router_state = NULL
WHERE revision < (SELECT MAX(revision) FROM revisions);

-- oldest-reader: 1
-- Documents, their index fields, and the one row of what the store knows about itself.

CREATE TABLE schema_level (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    schema INTEGER NOT NULL,
    oldest_reader INTEGER NOT NULL
) STRICT;

-- revision: the version that the last commit gave. last_commit: its time, in microseconds since
-- 1970, never going back. counter: moves with every commit that announces a change.
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    revision INTEGER NOT NULL,
    last_commit INTEGER NOT NULL,
    counter INTEGER NOT NULL
) STRICT;

INSERT INTO state VALUES (1, 0, 0, 0);

-- expires: microseconds since 1970. sweep: expires, rounded up so coarsely that it seldom changes
-- (see kagimori.storage.sqlite_documents); NULL where expires is. indexes: JSON of the index
-- fields, as compared and as resolved by references; NULL where there are none.
-- A table with a rowid: its inner pages hold numbers only and stay in the cache, whereas those
-- of a table without would hold whole bodies.
CREATE TABLE document (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    expires INTEGER,
    sweep INTEGER,
    indexes TEXT,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, id)
) STRICT;

CREATE TABLE document_index (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, field, value, id)
) STRICT, WITHOUT ROWID;

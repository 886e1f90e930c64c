-- Format 1 of a log in SQLite. Files of this format exist: a change is a new format with a migration.

-- One row: what was fixed when the log was initialised.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    log_id BLOB NOT NULL,
    lanes INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- The log, and all there is: a lane's head is its last event, an entity's state its newest.
-- seq: lane << 57 | position, so that a lane is a range. method: 0 Set, 1 Edit, 2 Revert, 3 Del.
-- claims: NULL when there are none.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    domain TEXT NOT NULL,
    type TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    time INTEGER NOT NULL,
    method INTEGER NOT NULL,
    claims TEXT,
    trace_parent TEXT,
    vals TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_id ON events (id);

-- Newest version first, as a search of entities meets them.
CREATE UNIQUE INDEX events_entity ON events (domain, type, key, version DESC);

-- In order of seq, which every index entry ends with.
CREATE INDEX events_kind ON events (domain, type);

-- Requests carried out under an idempotency key: events first, first + 1 … are theirs.
CREATE TABLE idempotency (
    domain TEXT NOT NULL,
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (domain, caller, key)
) STRICT, WITHOUT ROWID;

-- Format 1 of a log in PostgreSQL. Databases of this format exist: a change is a new migration.
-- The schema that the tables are in is the search path while this runs.

-- One row: what was fixed when the log was initialised, and the format.
CREATE TABLE meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format integer NOT NULL,
    log_id uuid NOT NULL,
    lanes smallint NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);

-- The end of each lane, a row a lane from the beginning. A batch is appended by the statement that
-- moves the head, and only if it is where that statement expects it. Rows are updated in place as
-- long as a page has room, so pages are kept nearly empty.
CREATE TABLE lanes (
    lane smallint PRIMARY KEY,
    head bigint NOT NULL DEFAULT 0,
    time bigint NOT NULL DEFAULT 0,
    id uuid
) WITH (fillfactor = 10);

-- The log. method: 0 Set, 1 Edit, 2 Revert, 3 Del. claims: NULL when there are none. vals: the canonical
-- JSON text of the values after the event (before it, for Del).
CREATE TABLE events (
    lane smallint NOT NULL,
    position bigint NOT NULL,
    id uuid NOT NULL,
    domain text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    time bigint NOT NULL,
    method smallint NOT NULL,
    claims text COLLATE "C",
    trace_parent text COLLATE "C",
    vals text COLLATE "C" NOT NULL,
    PRIMARY KEY (lane, position)
);

CREATE UNIQUE INDEX events_id ON events (id);

CREATE UNIQUE INDEX events_entity ON events (domain, type, key, version);

-- On an expression, so that each question has one index that can answer it: while a table has no
-- statistics, the server takes any index whose first columns are given for as good as the one that has
-- all of them, and reads a type's whole history for one event.
CREATE INDEX events_kind ON events ((domain || ' ' || type), position);

-- The newest state of each entity; vals is NULL once it is deleted. doc is what vals says, in the form
-- that filters are narrowed and sorts are made on.
CREATE TABLE entities (
    domain text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    vals text COLLATE "C",
    doc jsonb GENERATED ALWAYS AS (vals::jsonb) STORED,
    PRIMARY KEY (domain, type, key)
) WITH (fillfactor = 85);

-- Requests carried out under an idempotency key: events first, first + 1 … of their lane are theirs.
-- A caller may be longer than an index takes, so its SHA-256 stands in the index.
CREATE TABLE idempotency (
    domain text COLLATE "C" NOT NULL,
    caller_sha256 bytea NOT NULL,
    key text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    lane smallint NOT NULL,
    first bigint NOT NULL,
    count integer NOT NULL,
    PRIMARY KEY (domain, key, caller_sha256)
);

-- In the order of the log, for those who copy it.
CREATE UNIQUE INDEX idempotency_place ON idempotency (lane, first);

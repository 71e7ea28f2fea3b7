-- The front door: requests that their callers gave a name, and who may call.
-- Locks: creates; and ACCESS EXCLUSIVE on task_cancels for as long as its few rows take to be indexed.

-- The first request of each name. A row is there before its event is sent, so a repeat gets the same id at any
-- front door, also after the first one died half-way.
CREATE TABLE idempotency_keys (
    tenant      text        NOT NULL,
    key         text        NOT NULL,
    task_id     uuid        NOT NULL,
    fingerprint uuid        NOT NULL, -- of what was asked for, whatever its id and times
    taken_at    timestamptz NOT NULL, -- the window begins here
    busy_until  timestamptz,          -- a request is at it for no longer than this; null: Kafka has the event
    PRIMARY KEY (tenant, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX idempotency_keys_taken ON idempotency_keys (taken_at);
CREATE INDEX idempotency_keys_task ON idempotency_keys (task_id); -- a task that nobody has seen may still come

-- Who may call, and what for. The secret half of a key is kept as a hash only.
CREATE TABLE api_keys (
    id         text        PRIMARY KEY, -- the half that may be shown
    hash       bytea       NOT NULL,    -- BLAKE3 of the whole key
    tenant     text        NOT NULL,
    scopes     text[]      NOT NULL CHECK (scopes <@ ARRAY['submit', 'read', 'cancel', 'admin'] AND cardinality(scopes) > 0),
    note       text,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text        NOT NULL,
    revoked_at timestamptz,
    revoked_by text
);

-- What a tenant may ask of all front doors together is shared out by each of them alone: these are per front door.
CREATE TABLE tenant_limits (
    tenant           text    PRIMARY KEY,
    tasks_per_second real    CHECK (tasks_per_second > 0),
    burst            integer CHECK (burst > 0),
    in_flight        integer CHECK (in_flight > 0)
);

-- A request counts for tasks of its tenant only, so nobody's request stands in the way of another's. The empty
-- tenant is whoever runs the workers: theirs counts for all.
UPDATE task_cancels SET tenant = '';
ALTER TABLE task_cancels ALTER COLUMN tenant SET DEFAULT '', ALTER COLUMN tenant SET NOT NULL,
    DROP CONSTRAINT task_cancels_pkey, ADD PRIMARY KEY (task_id, tenant);

-- Outcomes that are to be posted to whoever submitted the task, written in the transaction that ended it.
CREATE TABLE callbacks (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id   text        NOT NULL,
    topic      text        NOT NULL,
    task_id    uuid        NOT NULL,
    run        smallint    NOT NULL,
    tenant     text        NOT NULL,
    target     text        NOT NULL, -- a URL
    attempts   integer     NOT NULL DEFAULT 0,
    former     integer     NOT NULL DEFAULT 0, -- attempts made before it was last sent again by command
    due_at     timestamptz DEFAULT now(), -- null: nothing more is to be done
    outcome    text        CHECK (outcome IN ('delivered', 'given_up', 'disabled')),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (task_id, run),
    CHECK ((due_at IS NULL) = (outcome IS NOT NULL))
);
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX callbacks_created ON callbacks (created_at);

-- Each try, for as long as its callback is kept.
CREATE TABLE callback_attempts (
    callback_id bigint      NOT NULL REFERENCES callbacks ON DELETE CASCADE,
    attempt     integer     NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    status_code integer,
    error       text,
    took_ms     integer     NOT NULL,
    PRIMARY KEY (callback_id, attempt)
);

-- What callbacks of a tenant are signed with: by all that are not revoked, so that one can replace another.
CREATE TABLE callback_secrets (
    tenant     text        NOT NULL,
    id         text        NOT NULL,
    secret     text        NOT NULL, -- whsec_ and base64, as Standard Webhooks writes it
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text        NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (tenant, id)
);

-- Targets that answered 410: nothing is sent to them until somebody enables them again.
CREATE TABLE callback_targets_disabled (
    tenant text        NOT NULL,
    target text        NOT NULL,
    since  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, target)
);

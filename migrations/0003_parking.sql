-- Tasks that wait in the database: long retries, those behind them, tasks for later, tasks that run long.
-- Locks: creates; and ACCESS EXCLUSIVE on partition_progress for an instant, to add columns without defaults that rewrite.

CREATE TYPE park_kind AS ENUM ('retry', 'behind', 'delayed', 'running', 'redrive');

-- One row a task. Its offset is settled, so the row is all there is of it beside the log itself.
CREATE TABLE parked_tasks (
    group_id     text        NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    log_book     integer     NOT NULL, -- offsets name records of one log; a topic made again is another
    "offset"     bigint      NOT NULL,
    key_hash     uuid        NOT NULL, -- 128 bits over (tenant, ordering key); of a task without a key, its id
    task_id      uuid        NOT NULL,
    kind         park_kind   NOT NULL,
    run          smallint    NOT NULL,
    attempts     smallint    NOT NULL, -- attempts that ended without success
    wakes        smallint    NOT NULL DEFAULT 0, -- times loaded since it was parked: a task that kills its worker shows here
    age_ms       bigint      NOT NULL, -- time spent running and in planned waits; outages are not in it
    due_at       timestamptz,          -- of delayed tasks alone; all others are due with their key
    deadline     timestamptz,
    record_time  timestamptz,
    parked_at    timestamptz NOT NULL,
    tenant       text        NOT NULL,
    task_type    text        NOT NULL,
    error        json,                 -- of the last attempt
    headers      bytea       NOT NULL,
    record_value bytea       NOT NULL,
    PRIMARY KEY (group_id, topic, partition, log_book, "offset")
);
CREATE INDEX parked_tasks_by_key ON parked_tasks (group_id, topic, partition, key_hash, log_book, "offset") WHERE kind <> 'delayed';
CREATE INDEX parked_tasks_delayed ON parked_tasks (group_id, topic, partition, due_at) WHERE kind = 'delayed';
CREATE INDEX parked_tasks_deadline ON parked_tasks (group_id, topic, partition, deadline) WHERE deadline IS NOT NULL;
CREATE INDEX parked_tasks_task_id ON parked_tasks (task_id);

-- Due time belongs to the key, order to the offset: a due key wakes its lowest offset.
CREATE TABLE parked_keys (
    group_id  text        NOT NULL,
    topic     text        NOT NULL,
    partition integer     NOT NULL,
    key_hash  uuid        NOT NULL,
    due_at    timestamptz NOT NULL,
    depth     integer     NOT NULL, -- rows of parked_tasks with this key, delayed ones not counted
    PRIMARY KEY (group_id, topic, partition, key_hash)
);
CREATE INDEX parked_keys_due ON parked_keys (group_id, topic, partition, due_at);
-- Keys with as many tasks as a key may have: few, and asked for all the time.
CREATE INDEX parked_keys_deep ON parked_keys (group_id, topic, partition) WHERE depth >= 100000;

-- In careful mode: the task that is about to run, and how often it was.
ALTER TABLE partition_progress ADD COLUMN suspect_log_book integer, ADD COLUMN suspect_offset bigint,
    ADD COLUMN suspect_starts smallint;
-- Which of the last records did not decode: a bit each, the latest lowest, below a leading 1.
ALTER TABLE partition_progress ADD COLUMN decode_window bigint;

-- What a task that runs long, waits for another attempt or reports progress says of itself. Fenced by the
-- claim, and lost with a crash of the server: the next report writes it again.
CREATE UNLOGGED TABLE task_progress (
    task_id         uuid        PRIMARY KEY,
    group_id        text        NOT NULL,
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    claim           uuid        NOT NULL,
    tenant          text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('processing', 'retrying')),
    run             smallint    NOT NULL,
    attempt         smallint    NOT NULL,
    fraction        real,
    note            text,
    started_at      timestamptz NOT NULL,
    next_attempt_at timestamptz,
    updated_at      timestamptz NOT NULL
);
CREATE INDEX task_progress_partition ON task_progress (group_id, topic, partition);

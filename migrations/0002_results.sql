-- What became of each task. Locks: creates only.
-- Partitioned by the birth day of the task's id, so that the primary key is unique for good, a read by
-- id touches one partition, and retention drops whole tables. Fixed-width columns come first: no padding.

CREATE TYPE task_status AS ENUM ('success', 'failed', 'cancelled', 'expired');

CREATE TABLE task_results (
    task_id      uuid        NOT NULL,
    submitted_at timestamptz NOT NULL,
    completed_at timestamptz NOT NULL,
    "offset"     bigint      NOT NULL,
    partition    integer     NOT NULL,
    day          date        NOT NULL,
    status       task_status NOT NULL,
    run          smallint    NOT NULL,
    attempts     smallint    NOT NULL,
    fingerprint  uuid        NOT NULL, -- 128 bits of BLAKE3, in Postgres' only fixed 16-byte type
    duplicate_of uuid,
    topic        text        NOT NULL,
    tenant       text        NOT NULL,
    task_type    text        NOT NULL,
    key          text,
    content_type text        NOT NULL,
    result       json,
    result_bytes bytea,
    error        json,
    PRIMARY KEY (day, task_id)
) PARTITION BY RANGE (day);

-- The first task of each deduplication key, for as long as the window is open. The hash leads the key:
-- a look-up over several days then is one descent a day, not a walk through it.
CREATE TABLE task_dedup (
    hash        uuid NOT NULL, -- 128 bits of BLAKE3 over tenant, ordering key and deduplication key
    task_id     uuid NOT NULL,
    fingerprint uuid NOT NULL,
    day         date NOT NULL,
    PRIMARY KEY (hash, day)
) PARTITION BY RANGE (day);

-- How many results of each log partition went with a day that retention dropped: the audit's other half.
CREATE TABLE dropped_days (
    day       date    NOT NULL,
    topic     text    NOT NULL,
    partition integer NOT NULL,
    results   bigint  NOT NULL,
    PRIMARY KEY (day, topic, partition)
);

-- Records that could not become a result, with everything needed to look at them or to try again.
CREATE TABLE dead_letters (
    group_id     text        NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    log_book     integer     NOT NULL, -- offsets name records of one log; a topic made again is another
    "offset"     bigint      NOT NULL,
    run          smallint    NOT NULL,
    task_id      uuid,
    tenant       text,
    task_type    text,
    reason       text        NOT NULL,
    error        text        NOT NULL,
    attempts     smallint    NOT NULL,
    record_key   bytea,
    record_value bytea       NOT NULL,
    headers      json        NOT NULL,
    record_time  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    redriven_at  timestamptz,
    PRIMARY KEY (group_id, topic, partition, log_book, "offset", run)
);
CREATE INDEX dead_letters_task_id ON dead_letters (task_id) WHERE task_id IS NOT NULL;

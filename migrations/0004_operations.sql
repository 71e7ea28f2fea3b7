-- What people do to running work, and what is still to be told to others.
-- Locks: creates; and ACCESS EXCLUSIVE on dead_letters for an instant, to add columns without defaults.

ALTER TABLE dead_letters ADD COLUMN redriven_by text, ADD COLUMN discarded_at timestamptz,
    ADD COLUMN discarded_by text, ADD COLUMN discard_reason text;
CREATE INDEX dead_letters_created ON dead_letters (created_at);

-- Who did what when: redrives, discards, pauses, withdrawals.
CREATE TABLE operations_log (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    by      text        NOT NULL,
    action  text        NOT NULL,
    reason  text,
    detail  json        NOT NULL
);

-- Task types and tenants of which nothing is started.
CREATE TABLE pauses (
    scope  text        NOT NULL CHECK (scope IN ('task_type', 'tenant')),
    name   text        NOT NULL,
    since  timestamptz NOT NULL DEFAULT now(),
    by     text        NOT NULL,
    reason text,
    PRIMARY KEY (scope, name)
);

-- Up to where a partition goes on although most of its records do not decode.
CREATE TABLE decode_allowances (
    group_id     text        NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    log_book     integer     NOT NULL,
    until_offset bigint      NOT NULL,
    by           text        NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_id, topic, partition)
);

-- Requests only: the owner of the task writes how it ended.
CREATE TABLE task_cancels (
    task_id      uuid        PRIMARY KEY,
    tenant       text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    by           text        NOT NULL
);
CREATE INDEX task_cancels_requested ON task_cancels (requested_at);

-- What is to be sent once its transaction is durable. A copy of a dead letter names the letter; whoever
-- sends it reads the bytes there.
CREATE TABLE outbox (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text        NOT NULL CHECK (kind IN ('dead_letter_copy')),
    group_id   text        NOT NULL,
    topic      text        NOT NULL,
    partition  integer     NOT NULL,
    log_book   integer     NOT NULL,
    "offset"   bigint      NOT NULL,
    run        smallint    NOT NULL,
    attempts   integer     NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_due ON outbox (due_at);

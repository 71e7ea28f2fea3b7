-- Which log this schema belongs to, and where each of its partitions stands.
-- Locks: creates only; nothing that exists is touched.

-- One row: one consumer group and one topic per schema.
CREATE TABLE deployment (
    only_row        boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    group_id        text        NOT NULL,
    topic           text        NOT NULL,
    cluster_id      text,
    topic_id        text,
    partition_count integer     NOT NULL,
    pinned_at       timestamptz NOT NULL DEFAULT now()
);

-- One row a partition: the fence (claim, seq), the position and the open book.
-- seq is part of the key and of every predicate, so that a flush finds its row by one index entry
-- however many dead versions an old snapshot keeps alive. A unique index on the partition alone would
-- walk those versions at each flush; rows are created once, under an advisory lock, instead.
CREATE TABLE partition_progress (
    group_id       text        NOT NULL,
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    seq            bigint      NOT NULL,
    claim          uuid,
    owner          text,
    claimed_at     timestamptz,
    book           integer     NOT NULL DEFAULT 1,
    log_book       integer     NOT NULL DEFAULT 1, -- the book with which the log began that is read now
    first_offset   bigint      NOT NULL,
    next_offset    bigint      NOT NULL,
    high_offset    bigint      NOT NULL,
    leader_epoch   integer,
    frontier_time  timestamptz,
    unclean_starts integer     NOT NULL DEFAULT 0,
    results        bigint      NOT NULL DEFAULT 0,
    duplicates     bigint      NOT NULL DEFAULT 0,
    dead_letters   bigint      NOT NULL DEFAULT 0,
    parked         bigint      NOT NULL DEFAULT 0,
    gaps           bigint      NOT NULL DEFAULT 0,
    lost           bigint      NOT NULL DEFAULT 0,
    flushed_at     timestamptz,
    PRIMARY KEY (group_id, topic, partition, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- A closed book for each time somebody moved a position by hand.
CREATE TABLE position_history (
    group_id     text        NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    book         integer     NOT NULL,
    first_offset bigint      NOT NULL,
    next_offset  bigint      NOT NULL,
    high_offset  bigint      NOT NULL,
    moved_to     bigint      NOT NULL,
    results      bigint      NOT NULL,
    duplicates   bigint      NOT NULL,
    dead_letters bigint      NOT NULL,
    parked       bigint      NOT NULL,
    gaps         bigint      NOT NULL,
    lost         bigint      NOT NULL,
    reason       text        NOT NULL,
    moved_by     text        NOT NULL,
    moved_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_id, topic, partition, book)
);

-- Every schema that some release of Millrace knows, so that an older reader can fetch a newer writer's.
CREATE TABLE schemas_known (
    fingerprint  bigint      PRIMARY KEY,
    schema_json  text        NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now()
);

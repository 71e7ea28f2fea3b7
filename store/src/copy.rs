//! Rows of `task_results` and `task_dedup` in Postgres' binary COPY format.
//!
//! Rows are checked while they are written, so that a refusal by the database is rare: text is UTF-8
//! without NUL by the decoder's contract, and a payload that calls itself JSON but is not, or nests too
//! deep for readers and for the server's stack, is kept as bytes instead. Format: PostgreSQL manual, COPY, "Binary Format".

use millrace_schemas::{Day, Fingerprint, TaskEventRef, TaskId};
use sqlx::PgConnection;

use crate::rows::Output;
use crate::trouble::Trouble;

/// Between the Unix epoch and Postgres' own, 2000-01-01, in microseconds and in days.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
const POSTGRES_EPOCH_DAYS: i32 = 10_957;

/// Bytes handed to the socket at once: enough to keep the server busy, small enough for the memory budget.
const CHUNK: usize = 256 * 1024;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = &[0xff, 0xff];

/// Columns of `task_results` in the order in which [`CopyBuffer::result`] writes them.
pub const RESULT_COLUMNS: &str = "task_id, submitted_at, completed_at, \"offset\", partition, day, status, \
     run, attempts, fingerprint, duplicate_of, topic, tenant, task_type, key, content_type, result, result_bytes, error";
const RESULT_FIELDS: i16 = 19;

/// The error columns of tasks that were ended from outside.
const CANCELLED: &str = r#"{"code":"cancelled","message":"somebody asked for it to be cancelled before it was finished"}"#;
const EXPIRED: &str =
    r#"{"code":"expired","message":"its deadline passed before it was finished"}"#;

/// Columns of `task_dedup` in the order in which [`CopyBuffer::dedup`] writes them.
pub(crate) const DEDUP_COLUMNS: &str = "hash, task_id, fingerprint, day";
const DEDUP_FIELDS: i16 = 4;

/// A task's terminal status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It has a result.
    Success,
    /// It has an error.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
    /// Its deadline came first.
    Expired,
}

impl Status {
    /// The label in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// The status with this label; what no label of ours says counts as success.
    pub(crate) fn of(label: &str) -> Self {
        [Self::Failed, Self::Cancelled, Self::Expired]
            .into_iter()
            .find(|status| status.as_str() == label)
            .unwrap_or(Self::Success)
    }
}

/// What a row of `task_results` says beside the event itself.
#[derive(Debug, Clone, Copy)]
pub struct ResultRow<'a> {
    /// The event.
    pub event: &'a TaskEventRef<'a>,
    /// Birth day of its id.
    pub day: Day,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Where the record lies.
    pub topic: &'a str,
    /// Where the record lies.
    pub partition: i32,
    /// Where the record lies.
    pub offset: i64,
    /// Microseconds since the Unix epoch.
    pub completed_at: i64,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// Attempts that ended.
    pub attempts: u16,
    /// How it ended.
    pub body: Body<'a>,
}

/// The part of a row that says how the task ended.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Success, with the event's payload as the result.
    Payload,
    /// Success, with what a handler returned.
    Output(&'a Output),
    /// Cancelled on request.
    Cancelled,
    /// Past its deadline.
    Expired,
    /// Another task's result is this one's, too.
    DuplicateOf(TaskId, Status),
}

/// Rows of one table, encoded and not yet sent.
#[derive(Debug)]
pub struct CopyBuffer {
    bytes: Vec<u8>,
}

impl Default for CopyBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl CopyBuffer {
    /// An empty stream: the header only.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: SIGNATURE.to_vec(),
        }
    }

    /// The encoded stream with its trailer, ready to be sent.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(TRAILER);
        self.bytes
    }

    /// Adds a row of `task_results`, its fields in the order of [`RESULT_COLUMNS`].
    pub fn result(&mut self, row: &ResultRow<'_>) {
        let event = row.event;
        self.bytes.extend_from_slice(&RESULT_FIELDS.to_be_bytes());
        self.field(event.task_id.as_bytes());
        self.field(&(event.submitted_at - POSTGRES_EPOCH_MICROS).to_be_bytes());
        self.field(&(row.completed_at - POSTGRES_EPOCH_MICROS).to_be_bytes());
        self.field(&row.offset.to_be_bytes());
        self.field(&row.partition.to_be_bytes());
        self.field(&postgres_day(row.day));
        let status = match row.body {
            Body::Payload | Body::Output(_) => Status::Success,
            Body::Cancelled => Status::Cancelled,
            Body::Expired => Status::Expired,
            Body::DuplicateOf(_, status) => status,
        };
        self.field(status.as_str().as_bytes());
        self.field(&row.run.to_be_bytes());
        self.field(&smallint(row.attempts).to_be_bytes());
        self.field(&row.fingerprint.0);
        match row.body {
            Body::DuplicateOf(first, _) => self.field(first.as_bytes()),
            Body::Payload | Body::Output(_) | Body::Cancelled | Body::Expired => self.null(),
        }
        self.field(row.topic.as_bytes());
        self.field(event.tenant.as_bytes());
        self.field(event.task_type.as_bytes());
        self.optional(event.key.map(str::as_bytes));
        let (content_type, result, error) = match row.body {
            Body::Payload => (event.content_type, Some(event.payload), None),
            Body::Output(output) => (&*output.content_type, Some(&*output.body), None),
            Body::Cancelled => (event.content_type, None, Some(CANCELLED)),
            Body::Expired => (event.content_type, None, Some(EXPIRED)),
            Body::DuplicateOf(..) => (event.content_type, None, None),
        };
        self.field(content_type.as_bytes());
        let json = result.filter(|result| stored_as_json(content_type, result));
        self.optional(json);
        self.optional(result.filter(|_| json.is_none()));
        // Failed results are few and written with their dead letters.
        self.optional(error.map(str::as_bytes));
    }

    pub(crate) fn dedup(
        &mut self,
        hash: &[u8; 16],
        first: TaskId,
        fingerprint: Fingerprint,
        day: Day,
    ) {
        self.bytes.extend_from_slice(&DEDUP_FIELDS.to_be_bytes());
        self.field(hash);
        self.field(first.as_bytes());
        self.field(&fingerprint.0);
        self.field(&postgres_day(day));
    }

    /// Begins a row of so many fields.
    pub(crate) fn row(&mut self, fields: i16) {
        self.bytes.extend_from_slice(&fields.to_be_bytes());
    }

    /// A time, in microseconds since the Unix epoch.
    pub(crate) fn time(&mut self, micros: Option<i64>) {
        match micros {
            Some(micros) => self.field(&(micros - POSTGRES_EPOCH_MICROS).to_be_bytes()),
            None => self.null(),
        }
    }

    pub(crate) fn field(&mut self, value: &[u8]) {
        // A record is at most some megabytes, so its fields' lengths fit; Postgres itself ends at 1 GiB.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }

    fn null(&mut self) {
        self.bytes.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    pub(crate) fn optional(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.field(value),
            None => self.null(),
        }
    }

    /// Whether enough has gathered to be worth a write to the socket.
    #[must_use]
    pub(crate) const fn is_chunk(&self) -> bool {
        self.bytes.len() >= CHUNK
    }
}

/// A count as the table holds it.
pub(crate) fn smallint(count: u16) -> i16 {
    i16::try_from(count).unwrap_or(i16::MAX)
}

const fn postgres_day(day: Day) -> [u8; 4] {
    (day.days_since_epoch() - POSTGRES_EPOCH_DAYS).to_be_bytes()
}

/// How deep JSON may nest. Postgres' own limit depends on the server's stack; readers commonly stop at 128,
/// and an answer wraps the result in a few levels of its own.
const DEEPEST_JSON: usize = 120;

/// Whether the content type says JSON (RFC 6838 `+json` suffixes included) and the payload is JSON that
/// Postgres' `json` column accepts.
pub(crate) fn stored_as_json(content_type: &str, payload: &[u8]) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    (essence == "application/json" || essence.ends_with("+json"))
        && !nests_deeper(payload, DEEPEST_JSON)
        && std::str::from_utf8(payload)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// Whether brackets outside of strings nest deeper; serde_json skips values without counting.
fn nests_deeper(json: &[u8], limit: usize) -> bool {
    let opening = |byte: &&u8| matches!(**byte, b'[' | b'{');
    if json.iter().filter(opening).count() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// One COPY under way on a connection: rows are sent while they are encoded.
pub(crate) struct CopyIn<'c> {
    copy: sqlx::postgres::PgCopyIn<&'c mut PgConnection>,
    buffer: CopyBuffer,
}

impl<'c> CopyIn<'c> {
    pub(crate) async fn begin(
        connection: &'c mut PgConnection,
        table: &str,
        columns: &str,
    ) -> Result<Self, Trouble> {
        let statement = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
        let copy = connection.copy_in_raw(&statement).await?;
        Ok(Self {
            copy,
            buffer: CopyBuffer::new(),
        })
    }

    pub(crate) fn buffer(&mut self) -> &mut CopyBuffer {
        &mut self.buffer
    }

    /// Sends what has gathered, if it is worth it.
    pub(crate) async fn drain(&mut self) -> Result<(), Trouble> {
        if self.buffer.is_chunk() {
            self.copy.send(self.buffer.bytes.as_slice()).await?;
            self.buffer.bytes.clear();
        }
        Ok(())
    }

    /// Sends the rest and the trailer; returns how many rows the server took.
    pub(crate) async fn finish(mut self) -> Result<u64, Trouble> {
        self.buffer.bytes.extend_from_slice(TRAILER);
        self.copy.send(self.buffer.bytes.as_slice()).await?;
        Ok(self.copy.finish().await?)
    }
}

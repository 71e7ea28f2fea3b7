//! `consumer dead-letters show`: all that was kept of one record, and what became of its task.

use chrono::DateTime;
use millrace_schemas::{Decoders, TaskEventRef};
use millrace_settings::{Format, exit};
use millrace_store::letters::{self, Filter, Letter, Waiting, WholeLetter};
use millrace_store::position::Consumer;
use millrace_store::{Purpose, results};
use sqlx::PgConnection;

use super::args::{ShowArgs, Which};
use super::decoders;
use super::line::{Line, time};
use super::raw::Raw;
use super::tables::Tables;

/// Letters of one task that are shown.
const MOST: i64 = 1_000;

#[derive(Debug, serde::Serialize)]
struct Shown {
    /// Its latest letter.
    #[serde(flatten)]
    letter: Line,
    headers: Vec<Header>,
    value: Raw,
    /// The event, where the bytes decode.
    event: Option<Event>,
    /// Why they do not, where they do not.
    undecodable: Option<String>,
    /// How the task stands now.
    task: Option<results::TaskStatus>,
    /// Where it waits, when it was sent to work again.
    waiting: Option<Waiting>,
    /// Every run that ended as a dead letter, and what was decided on it.
    history: Vec<Line>,
}

#[derive(Debug, serde::Serialize)]
struct Header {
    name: String,
    value: Raw,
}

#[derive(Debug, serde::Serialize)]
struct Event {
    task_id: String,
    task_type: String,
    tenant: String,
    key: Option<String>,
    dedup_key: Option<String>,
    submitted_at: Option<String>,
    run_at: Option<String>,
    deadline: Option<String>,
    content_type: String,
    reply: bool,
    callback: Option<String>,
    payload: Raw,
}

impl Event {
    fn new(event: &TaskEventRef<'_>) -> Self {
        let at = |micros: i64| DateTime::from_timestamp_micros(micros).map(time);
        Self {
            task_id: event.task_id.to_string(),
            task_type: event.task_type.to_owned(),
            tenant: event.tenant.to_owned(),
            key: event.key.map(str::to_owned),
            dedup_key: event.dedup_key.map(str::to_owned),
            submitted_at: at(event.submitted_at),
            run_at: event.run_at.and_then(at),
            deadline: event.deadline.and_then(at),
            content_type: event.content_type.to_owned(),
            reply: event.reply,
            callback: event.callback.map(str::to_owned),
            payload: Raw::json_or_hex(event.payload),
        }
    }
}

/// Prints what is there; exit code 1 when there is nothing.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &ShowArgs) -> anyhow::Result<u8> {
    let tables = Tables::new(&args.tables)?;
    let mut connection = tables.database.connect(Purpose::Reading).await?;
    let decoders = decoders::known(args.framing, &mut connection).await?;
    let mut found = match args.which {
        Which::Place(partition, offset) => {
            letters::at(&mut connection, &tables.consumer, partition, offset).await?
        }
        Which::Task(id) => {
            let filter = Filter {
                task_ids: vec![id],
                closed_too: true,
                ..Filter::default()
            };
            let selection = filter.now(&mut connection).await?;
            letters::list(&mut connection, &tables.consumer, &selection, MOST).await?
        }
    };
    found.sort_by_key(|letter| letter.place);
    let mut shown = Vec::new();
    for record in found.chunk_by(|one, next| {
        let of = |letter: &Letter| {
            let place = letter.place;
            (place.partition, place.log_book, place.offset)
        };
        of(one) == of(next)
    }) {
        if let Some(one) = look(&mut connection, &tables.consumer, &decoders, record).await? {
            shown.push(one);
        }
    }
    match args.tables.output.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&shown)?),
        Format::Table => shown.iter().for_each(print),
    }
    if shown.is_empty() {
        eprintln!(
            "there is no dead letter of it in group {} on topic {}",
            tables.consumer.group, tables.consumer.topic
        );
        return Ok(exit::REJECTED);
    }
    Ok(exit::DONE)
}

async fn look(
    connection: &mut PgConnection,
    consumer: &Consumer,
    decoders: &Decoders,
    runs: &[Letter],
) -> anyhow::Result<Option<Shown>> {
    let Some(latest) = runs.last() else {
        return Ok(None);
    };
    let whole = letters::whole(connection, consumer, &[latest.place]).await?;
    let Some(WholeLetter { headers, value, .. }) = whole.into_iter().next() else {
        return Ok(None);
    };
    let (event, undecodable, id) = match decoders.decode(&value) {
        Ok(decoded) => {
            let event = decoded.event();
            (Some(Event::new(&event)), None, Some(event.task_id))
        }
        Err(error) => (None, Some(error.to_string()), None),
    };
    let task = match id.or(latest.task_id) {
        Some(id) => Some(results::status(connection, consumer, id).await?),
        None => None,
    };
    Ok(Some(Shown {
        letter: Line::from(latest),
        headers: headers
            .into_iter()
            .map(|(name, value)| Header {
                name,
                value: Raw::text_or_hex(&value),
            })
            .collect(),
        value: Raw::json_or_hex(&value),
        event,
        undecodable,
        task,
        waiting: letters::waiting(connection, consumer, latest.place).await?,
        history: runs.iter().map(Line::from).collect(),
    }))
}

fn print(shown: &Shown) {
    let field = |name: &str, value: &str| println!("  {name:<13} {value}");
    let letter = &shown.letter;
    println!(
        "{}:{} run {} ({})",
        letter.partition, letter.offset, letter.run, letter.state
    );
    field("reason", &letter.reason);
    field("error", &letter.error.escape_debug().to_string());
    for (name, value) in [
        ("task_id", &letter.task_id),
        ("tenant", &letter.tenant),
        ("task_type", &letter.task_type),
        ("key", &letter.key),
        ("record_time", &letter.record_time),
    ] {
        if let Some(value) = value {
            field(name, &value.escape_debug().to_string());
        }
    }
    field("created_at", &letter.created_at);
    for header in &shown.headers {
        field(
            "header",
            &format!("{}: {}", header.name, header.value.line()),
        );
    }
    field("value", &shown.value.line());
    match (&shown.event, &shown.undecodable) {
        (Some(event), _) => {
            field("event", &format!("{} of {}", event.task_type, event.tenant));
            field("content_type", &event.content_type);
            field("payload", &event.payload.line());
        }
        (None, Some(error)) => field("undecodable", error),
        (None, None) => {}
    }
    if let Some(task) = &shown.task {
        field(
            "task",
            &format!("{} ({})", task.status.as_str(), task.explanation),
        );
    }
    if let Some(waiting) = &shown.waiting {
        let since = time(waiting.parked_at);
        field(
            "waiting",
            &format!("{}, run {}, since {since}", waiting.kind, waiting.run),
        );
    }
    for run in &shown.history {
        let mut said = format!("run {}: {} at {}", run.run, run.reason, run.created_at);
        let decided = [
            ("redriven", &run.redriven_at, &run.redriven_by),
            ("discarded", &run.discarded_at, &run.discarded_by),
        ];
        for (word, at, by) in decided {
            if let Some(at) = at {
                let by = by.as_deref().unwrap_or("unknown");
                said.push_str(&format!("; {word} at {at} by {by}"));
            }
        }
        if let Some(why) = &run.discard_reason {
            said.push_str(&format!(": {}", why.escape_debug()));
        }
        field("history", &said);
    }
}

//! `consumer task ID`: all that is known of one task.

use millrace_settings::{Format, exit};
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, results};

use crate::exit_code::WithCode;
use crate::options::TaskArgs;

/// Prints what is known; exit code 1 when nothing is.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &TaskArgs) -> anyhow::Result<u8> {
    let database = Database::new(
        args.database.url().with_code(exit::USAGE)?,
        &args.database.schema,
    )
    .with_code(exit::USAGE)?;
    let consumer = Consumer {
        group: args.group.group.clone(),
        topic: args.topic.clone(),
    };
    let mut connection = database.connect(Purpose::Reading).await?;
    let report = results::report(&mut connection, &consumer, args.id).await?;
    match args.output.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Table => {
            println!("task    {}", report.task_id);
            println!("born    {}", report.born_at);
            println!("status  {} ({})", report.status, report.explanation);
            if let Some(serde_json::Value::Object(fields)) = &report.result {
                for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    println!("  {name:<13} {}", text(value));
                }
            }
            let more = [
                ("parked", &report.parked),
                ("progress", &report.progress),
                ("cancel request", &report.cancel_request),
            ];
            for (name, value) in more {
                if let Some(value) = value {
                    println!("{name} {value}");
                }
            }
            for letter in &report.dead_letters {
                println!("dead letter {letter}");
            }
        }
    }
    Ok(if report.status == "unknown" {
        exit::REJECTED
    } else {
        exit::DONE
    })
}

fn text(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

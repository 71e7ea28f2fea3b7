//! `consumer cancel ID`: asks the task's owner to end it. What is done stays as it is.

use millrace_settings::{Format, exit};
use millrace_store::operations_log::{self, Entry};
use millrace_store::position::Consumer;
use millrace_store::results::{self, StatusWord, TaskStatus};
use millrace_store::{Database, Purpose, cancels};
use sqlx::Connection as _;

use crate::exit_code::WithCode;
use crate::options::CancelArgs;

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// Its owner is asked; how it ends is for the owner to write.
    Requested,
    /// It had ended before.
    Done,
    /// There is no such task any more, or there never was.
    Unknown,
}

/// Asks; exit code 1 when nobody knows the task.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &CancelArgs) -> anyhow::Result<u8> {
    let database = Database::new(
        args.database.url().with_code(exit::USAGE)?,
        &args.database.schema,
    )
    .with_code(exit::USAGE)?;
    let consumer = Consumer {
        group: args.group.group.clone(),
        topic: args.topic.clone(),
    };
    let mut connection = database.connect(Purpose::Operations).await?;
    let found = results::status(&mut connection, &consumer, args.id).await?;
    let answer = match found.status {
        status if status.is_terminal() => Answer::Done,
        StatusWord::Unknown | StatusWord::Gone => Answer::Unknown,
        _ => {
            let by = args
                .by
                .by
                .clone()
                .unwrap_or_else(millrace_settings::operator);
            let mut transaction = connection.begin().await?;
            cancels::request(&mut transaction, args.id, found.tenant.as_deref(), &by).await?;
            let entry = Entry {
                by: &by,
                action: "cancel",
                reason: None,
                detail: &serde_json::json!({ "task_id": args.id.to_string() }),
            };
            operations_log::append(&mut transaction, &entry).await?;
            transaction.commit().await?;
            Answer::Requested
        }
    };
    print(args, answer, &found)?;
    Ok(match answer {
        Answer::Unknown => exit::REJECTED,
        Answer::Requested | Answer::Done => exit::DONE,
    })
}

fn print(args: &CancelArgs, answer: Answer, found: &TaskStatus) -> anyhow::Result<()> {
    let (id, status) = (args.id, found.status.as_str());
    match args.output.format {
        Format::Json => {
            let told = serde_json::json!({ "task_id": id.to_string(), "answer": answer, "status": status });
            println!("{}", serde_json::to_string_pretty(&told)?);
        }
        Format::Table => match answer {
            Answer::Requested => println!("requested: task {id}, now {status}"),
            Answer::Done => println!("nothing to cancel: task {id} is done, {status}"),
            Answer::Unknown => {
                println!(
                    "nothing to cancel: task {id} is {status} ({})",
                    found.explanation
                );
            }
        },
    }
    Ok(())
}

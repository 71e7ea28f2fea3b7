//! `consumer dead-letters list | show | redrive | discard`: what was set aside, and what is done about it.
//!
//! All of it happens in Postgres: no broker is asked, nothing is published again. What is done is done in
//! small transactions, each complete in itself, so a command that is interrupted can be given again; and it
//! is written down who did it.

pub mod args;
mod choice;
mod decoders;
pub mod discard;
mod line;
pub mod list;
mod raw;
pub mod redrive;
pub mod show;
mod tables;
mod tally;

use self::args::{DeadLettersArgs, DeadLettersCommand};

/// Runs the command; returns the exit code.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &DeadLettersArgs) -> anyhow::Result<u8> {
    match &args.command {
        DeadLettersCommand::List(args) => list::run(args).await,
        DeadLettersCommand::Show(args) => show::run(args).await,
        DeadLettersCommand::Redrive(args) => redrive::run(args).await,
        DeadLettersCommand::Discard(args) => discard::run(args).await,
    }
}

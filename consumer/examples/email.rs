//! A worker of one's own: sends e-mails, tries again what may pass, gives up what never will.
//!
//!     cargo run --release --example email -- --exit-when-idle 5s

use std::process::ExitCode;

use millrace_consumer::{Context, TaskError, Worker};

#[derive(serde::Deserialize)]
struct Email {
    to: String,
    body: String,
}

#[derive(serde::Serialize)]
struct Sent {
    id: String,
    bytes: usize,
}

async fn send(email: Email, context: Context) -> Result<Sent, TaskError> {
    if !email.to.contains('@') {
        return Err(TaskError::permanent(format!(
            "{:?} is no address",
            email.to
        )));
    }
    if email.to.starts_with("busy@") && context.attempt() == 1 {
        return Err(TaskError::retry("the mailbox is busy"));
    }
    // Here the message would go out, under a name by which the other side knows a repeat.
    let id = context.idempotency_key();
    let bytes = email.body.len();
    Ok(Sent { id, bytes })
}

fn main() -> ExitCode {
    Worker::from_args().register("email.send", send).run()
}

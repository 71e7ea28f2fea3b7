//! `chaos-worker`: a worker whose handlers do what their task's payload orders, attempt by attempt, and keep
//! a journal of it outside of the product.
//!
//! Delays are short, so that parking, retries and timeouts all happen within seconds. Everything else is an
//! ordinary worker: it takes the flags of `consumer run`. `CHAOS_DIR` names the round's folder.

mod desk;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use millrace_chaos::orders::Orders;
use millrace_chaos::plan::types;
use millrace_consumer::{Context, Mode, Policy, Worker};

use crate::desk::Desk;

fn main() -> ExitCode {
    let desk = match Desk::open() {
        Ok(desk) => Arc::new(desk),
        Err(error) => {
            eprintln!("error: CHAOS_DIR: {error}");
            return ExitCode::from(2);
        }
    };
    let handler = || {
        let desk = Arc::clone(&desk);
        move |orders: Orders, context: Context| {
            let desk = Arc::clone(&desk);
            async move { desk.follow(&orders, &context).await }
        }
    };
    Worker::from_args()
        .register(types::QUICK, handler())
        .with(quick(Mode::Key))
        .register(types::LOOSE, handler())
        .with(quick(Mode::Unordered))
        .register(types::PATIENT, handler())
        .with(Policy {
            timeout: None,
            ..quick(Mode::Key)
        })
        .run()
}

fn quick(mode: Mode) -> Policy {
    Policy {
        mode,
        max_attempts: types::MOST_ATTEMPTS,
        backoff_base: Duration::from_millis(20),
        backoff_cap: Duration::from_millis(200),
        timeout: Some(Duration::from_secs(1)),
        grace: Duration::from_millis(500),
        park_after: Duration::from_millis(100),
        run_long_after: Duration::from_millis(500),
        ..Policy::default()
    }
}

//! How attempts end, by what the handler does.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use millrace_consumer::handlers::{AttemptEnd, ERROR_BYTES, ExecutorOptions};
use millrace_consumer::{CancelReason, Context, Handler, Output, Payload, TaskError, Worker};
use serde::{Deserialize, Serialize};

use super::stage::{Stage, event, permanent, retry, text, until};

#[derive(Deserialize)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    count: u32,
}

#[derive(Serialize)]
struct Total {
    total: u32,
}

async fn add_up(order: Order, _: Context) -> Result<Total, TaskError> {
    let total = order.lines.iter().map(|line| line.count).sum();
    Ok(Total { total })
}

#[tokio::test]
async fn a_typed_function_gets_its_input_and_its_output_is_json() {
    let mut stage = Stage::new(|worker| worker.register("order", add_up));
    let AttemptEnd::Success(output) = stage
        .attempt("order", r#"{"lines":[{"count":2},{"count":3}]}"#)
        .await
    else {
        panic!("no success");
    };
    assert_eq!(&*output.content_type, "application/json");
    assert_eq!(&*output.body, br#"{"total":5}"#);
}

#[tokio::test]
async fn a_handler_that_waits_goes_on_after_its_first_poll() {
    let mut stage = Stage::new(|worker| {
        worker.register("wait", async |name: String| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            // A part of the work may go to a task of its own: there is a runtime to spawn on.
            tokio::spawn(tokio::time::sleep(Duration::from_millis(5))).await?;
            Ok::<_, TaskError>(name)
        })
    });
    assert_eq!(stage.success("wait", r#""tick""#).await, r#""tick""#);
}

#[tokio::test]
async fn a_handler_may_be_a_value_with_things_of_its_own() {
    struct Greeter(&'static str);
    impl Handler for Greeter {
        type Input = String;
        type Output = String;
        async fn run(&self, name: String, _: Context) -> Result<String, TaskError> {
            tokio::task::yield_now().await;
            Ok(format!("{} {name}", self.0))
        }
    }
    let mut stage = Stage::new(|worker| worker.register("greet", Greeter("Hello")));
    assert_eq!(stage.success("greet", r#""Ada""#).await, r#""Hello Ada""#);
}

#[tokio::test]
async fn a_raw_handler_gets_bytes_and_media_type_and_answers_with_both() {
    async fn reverse(payload: Payload, context: Context) -> Result<Output, TaskError> {
        Ok(Output {
            content_type: format!("{}+reversed", context.content_type()).into(),
            body: payload.iter().rev().copied().collect(),
        })
    }
    let mut stage = Stage::new(|worker| worker.register_raw("reverse", reverse));
    let mut event = event("reverse", "abc");
    event.content_type = "text/plain".to_owned();
    let start = stage.order(&event);
    stage.executor.start(vec![start]);
    let AttemptEnd::Success(output) = stage.answer().await.end else {
        panic!("no success");
    };
    assert_eq!(&*output.content_type, "text/plain+reversed");
    assert_eq!(&*output.body, b"cba");
}

#[tokio::test]
async fn a_blocking_handler_holds_up_no_async_one() {
    let mut stage = Stage::new(|worker| {
        worker
            .register_blocking("block", |free: String, context: Context| {
                while !context.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok::<_, TaskError>(free)
            })
            .register("quick", async |n: u8| Ok::<_, TaskError>(n))
    });
    let blocked: Vec<_> = (0..20).map(|_| stage.start("block", r#""b""#)).collect();
    until("all of them run", || {
        blocked.iter().all(|s| s.began().is_some())
    })
    .await;
    assert_eq!(stage.success("quick", "7").await, "7");
    for signal in blocked {
        signal.cancel(CancelReason::Requested);
    }
    for _ in 0..20 {
        assert_eq!(text(stage.answer().await.end), r#""b""#);
    }
}

#[tokio::test]
async fn a_handler_that_holds_its_thread_does_not_hold_up_what_waits_behind_it() {
    static LET_GO: AtomicBool = AtomicBool::new(false);
    let mut options = ExecutorOptions::new("tasks");
    options.threads = 2;
    let mut stage = Stage::with(&options, |worker| {
        worker
            .register("hold", async |n: u8| {
                while !LET_GO.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok::<_, TaskError>(n)
            })
            .register("quick", async |n: u8| Ok::<_, TaskError>(n))
    });
    let mut starts = vec![stage.order(&event("hold", "1"))];
    for _ in 0..200 {
        starts.push(stage.order(&event("quick", "2")));
    }
    let last = starts.last().unwrap().ticket;
    stage.executor.start(starts);
    // A share of 32 may wait behind the one that holds its thread; all others are answered meanwhile.
    let mut answered = 0;
    while stage.answer().await.ticket != last {
        answered += 1;
    }
    assert!(answered >= 200 - 32, "{answered}");
    LET_GO.store(true, Ordering::SeqCst);
    for _ in answered + 1..201 {
        stage.answer().await;
    }
}

#[tokio::test]
async fn a_question_mark_on_an_ordinary_error_means_retry_and_keeps_its_causes() {
    async fn parse(text: String, _: Context) -> Result<u16, TaskError> {
        Ok(text.parse::<u16>()?)
    }
    async fn explain(text: String) -> anyhow::Result<u16> {
        text.parse::<u16>().context("reading the port")
    }
    async fn explain_with_question_mark(text: String) -> Result<u16, TaskError> {
        Ok(explain(text).await?)
    }
    async fn word(_: String) -> Result<u16, TaskError> {
        Err("only a word")?
    }
    let mut stage = Stage::new(|worker| {
        worker
            .register("std", parse)
            .register("anyhow", explain)
            .register("through", explain_with_question_mark)
            .register("word", word)
    });
    let cause = "invalid digit found in string";
    assert_eq!(retry(stage.attempt("std", r#""x""#).await), cause);
    for task_type in ["anyhow", "through"] {
        let error = retry(stage.attempt(task_type, r#""x""#).await);
        assert_eq!(error, format!("reading the port: {cause}"));
    }
    assert_eq!(retry(stage.attempt("word", r#""x""#).await), "only a word");
}

#[tokio::test]
async fn a_handler_says_when_to_try_again_or_never() {
    async fn fail(what: String, _: Context) -> Result<(), TaskError> {
        let pause = Duration::from_secs(90);
        Err(match what.as_str() {
            "later" => TaskError::retry("busy").after(pause),
            _ => TaskError::permanent("no such account").after(pause),
        })
    }
    let mut stage = Stage::new(|worker| worker.register("fail", fail));
    let later = stage.attempt("fail", r#""later""#).await;
    let AttemptEnd::Retry { error, after } = later else {
        panic!("no retry: {later:?}");
    };
    assert_eq!(
        (error.as_str(), after),
        ("busy", Some(Duration::from_secs(90)))
    );
    assert_eq!(
        permanent(stage.attempt("fail", r#""never""#).await),
        "no such account"
    );
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt_wherever_it_comes() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("while dropped");
        }
    }
    #[derive(Deserialize)]
    #[serde(try_from = "u8")]
    struct Trap;
    impl TryFrom<u8> for Trap {
        type Error = String;
        fn try_from(_: u8) -> Result<Self, String> {
            panic!("while read");
        }
    }
    fn at_once(_: u8) -> std::future::Ready<Result<(), TaskError>> {
        panic!("before the future");
    }
    let mut stage = Stage::new(|worker| {
        worker
            .register("at_once", at_once)
            .register("first_poll", async |n: u8| -> Result<(), TaskError> {
                panic!("number {n}")
            })
            .register("later", async |_: u8| -> Result<(), TaskError> {
                tokio::time::sleep(Duration::from_millis(1)).await;
                panic!("later")
            })
            .register_raw("drop", |_, _| {
                let bomb = Bomb;
                std::future::poll_fn(move |_| {
                    let _ = &bomb;
                    std::task::Poll::Ready(Err::<Output, _>(TaskError::retry("x")))
                })
            })
            .register_blocking("blocking", |_: u8, _| -> Result<(), TaskError> {
                panic!("blocking")
            })
            .register("read", async |_: Trap| Ok::<_, TaskError>(()))
            .register("quick", async |n: u8| Ok::<_, TaskError>(n))
    });
    for (task_type, message) in [
        ("at_once", "before the future"),
        ("first_poll", "number 5"),
        ("later", "later"),
        ("drop", "while dropped"),
        ("blocking", "blocking"),
        ("read", "while read"),
    ] {
        let end = stage.attempt(task_type, "5").await;
        let AttemptEnd::Panicked { error } = end else {
            panic!("{task_type}: no panic: {end:?}");
        };
        assert_eq!(error, format!("the handler panicked: {message}"));
    }
    assert_eq!(stage.success("quick", "7").await, "7");
}

#[tokio::test]
async fn input_that_does_not_fit_is_permanent_and_says_where() {
    let mut stage = Stage::new(|worker| worker.register("order", add_up));
    let end = stage.attempt("order", r#"{"lines":[{"count":2},{"count":"three"}]}"#);
    let error = permanent(end.await);
    assert!(error.contains("`lines[1].count`"), "{error}");
    assert!(error.contains("line 1 column 38"), "{error}");
    let error = permanent(stage.attempt("order", "no json").await);
    assert!(error.contains("line 1 column"), "{error}");
}

#[tokio::test]
async fn a_result_that_has_no_place_is_permanent() {
    let mut options = ExecutorOptions::new("tasks");
    options.max_result_bytes = 10;
    let mut stage = Stage::with(&options, |worker| {
        worker
            .register("repeat", async |n: usize| Ok::<_, TaskError>("x".repeat(n)))
            .register("no_json", async |_: u8| {
                let odd = std::collections::BTreeMap::from([((1, 2), 3)]);
                Ok::<_, TaskError>(odd)
            })
            .register_raw("odd_type", async |_, _| {
                Ok::<_, TaskError>(Output {
                    content_type: "a\0b".into(),
                    body: Box::default(),
                })
            })
    });
    assert_eq!(stage.success("repeat", "8").await, r#""xxxxxxxx""#);
    let error = permanent(stage.attempt("repeat", "9").await);
    assert!(error.contains("11 bytes, more than the 10"), "{error}");
    let error = permanent(stage.attempt("no_json", "1").await);
    assert!(error.contains("key must be a string"), "{error}");
    let error = permanent(stage.attempt("odd_type", "1").await);
    assert!(error.contains("content type"), "{error}");
}

#[tokio::test]
async fn an_error_is_kept_short_and_without_nul() {
    let mut stage = Stage::new(|worker| {
        worker
            .register("long", async |_: u8| {
                Err::<(), _>(TaskError::retry("é\0".repeat(ERROR_BYTES)))
            })
            .register("panic", async |_: u8| -> Result<(), TaskError> {
                panic!("{}", "\0x".repeat(ERROR_BYTES))
            })
    });
    let error = retry(stage.attempt("long", "1").await);
    assert!(error.len() <= ERROR_BYTES && error.len() > ERROR_BYTES - 4);
    assert!(!error.contains('\0'));
    let end = stage.attempt("panic", "1").await;
    let AttemptEnd::Panicked { error } = end else {
        panic!("no panic: {end:?}");
    };
    assert!(error.len() <= ERROR_BYTES && !error.contains('\0'));
}

#[tokio::test]
async fn each_of_many_starts_is_answered_once() {
    const TASKS: usize = 5_000;
    fn all(worker: Worker) -> Worker {
        worker
            .register("now", async |n: u32| Ok::<_, TaskError>(n))
            .register("soon", async |n: u32| {
                tokio::time::sleep(Duration::from_micros(u64::from(n % 700))).await;
                if n.is_multiple_of(7) {
                    panic!("one of seven");
                }
                Ok::<_, TaskError>(n)
            })
            .register_blocking("block", |n: u32, _| Ok::<_, TaskError>(n))
    }
    let mut stage = Stage::new(all);
    let types = ["now", "soon", "soon", "now", "block"];
    let mut tickets = BTreeSet::new();
    for (n, task_type) in types.iter().cycle().take(TASKS).enumerate() {
        let start = stage.order(&event(task_type, &n.to_string()));
        tickets.insert(start.ticket);
        stage.executor.start(vec![start]);
    }
    for _ in 0..TASKS {
        let ticket = stage.answer().await.ticket;
        assert!(tickets.remove(&ticket), "{ticket} was answered twice");
    }
    assert!(tickets.is_empty());
    assert_eq!(stage.executor.waiting(), 0);
}

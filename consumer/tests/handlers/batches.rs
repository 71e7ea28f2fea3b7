//! What a batch handler may rely on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_consumer::handlers::AttemptEnd;
use millrace_consumer::{Batching, CancelReason, Context, TaskError, Worker};

use super::stage::{Stage, event, permanent, retry, text, until};

/// How long a batch may gather in tests that want it full.
const LONG: Duration = Duration::from_secs(10);

fn batching(size: usize, linger: Duration) -> Batching {
    Batching { size, linger }
}

#[tokio::test]
async fn a_full_batch_is_handed_over_at_once_and_each_task_gets_its_own_answer() {
    async fn halve(numbers: Vec<(u32, Context)>) -> Vec<Result<u32, TaskError>> {
        assert_eq!(numbers.len(), 4);
        tokio::time::sleep(Duration::from_millis(1)).await;
        numbers
            .into_iter()
            .map(|(number, _)| match number {
                0 => Err(TaskError::permanent("nothing to halve")),
                n if n.is_multiple_of(2) => Ok(n / 2),
                n => Err(TaskError::retry(format!("{n} is odd"))),
            })
            .collect()
    }
    let mut stage = Stage::new(|w| w.register_batch("halve", batching(4, LONG), halve));
    let starts = ["8", "0", "7", "2"].map(|payload| stage.order(&event("halve", payload)));
    stage.executor.start(starts.into());
    let mut ends = Vec::new();
    for _ in 0..4 {
        ends.push(stage.answer().await);
    }
    ends.sort_by_key(|finished| finished.ticket);
    let [eight, zero, seven, two] = ends.try_into().unwrap();
    assert_eq!(text(eight.end), "4");
    assert_eq!(permanent(zero.end), "nothing to halve");
    assert_eq!(retry(seven.end), "7 is odd");
    assert_eq!(text(two.end), "1");
}

#[tokio::test]
async fn a_batch_that_does_not_fill_goes_when_it_has_waited_long_enough() {
    async fn count(tasks: Vec<(u32, Context)>) -> Vec<Result<usize, TaskError>> {
        let count = tasks.len();
        tasks.into_iter().map(|_| Ok(count)).collect()
    }
    let few = batching(1_000, Duration::from_millis(5));
    let mut stage = Stage::new(|worker| worker.register_batch("count", few, count));
    assert_eq!(stage.success("count", "1").await, "1");
}

#[tokio::test]
async fn input_that_does_not_fit_never_gets_into_a_batch() {
    let mut stage = Stage::new(|worker| {
        worker.register_batch(
            "sum",
            batching(2, LONG),
            async |tasks: Vec<(u32, Context)>| tasks.into_iter().map(|(n, _)| Ok(n)).collect(),
        )
    });
    let error = permanent(stage.attempt("sum", r#""many""#).await);
    assert!(error.contains("does not fit"), "{error}");
}

#[tokio::test]
async fn a_batch_that_panics_or_miscounts_fails_every_attempt_and_nothing_else() {
    fn all(worker: Worker) -> Worker {
        worker
            .register_batch("panic", batching(2, LONG), async |_: Vec<(u8, Context)>| {
                panic!("no batch for me");
                #[expect(unreachable_code, reason = "it says what the handler would answer")]
                Vec::<Result<(), TaskError>>::new()
            })
            .register_batch(
                "miscount",
                batching(2, LONG),
                async |_: Vec<(u8, Context)>| vec![Ok::<_, TaskError>(())],
            )
            .register("quick", async |n: u8| Ok::<_, TaskError>(n))
    }
    let mut stage = Stage::new(all);
    for _ in 0..2 {
        stage.start("panic", "1");
    }
    for _ in 0..2 {
        let end = stage.answer().await.end;
        assert!(matches!(end, AttemptEnd::Panicked { .. }), "{end:?}");
    }
    for _ in 0..2 {
        stage.start("miscount", "1");
    }
    for _ in 0..2 {
        let error = retry(stage.answer().await.end);
        assert_eq!(error, "the batch handler gave 1 answers for 2 tasks");
    }
    assert_eq!(stage.success("quick", "7").await, "7");
}

#[tokio::test]
async fn a_task_is_alone_from_its_third_attempt_on() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let mut stage = Stage::new(move |worker| {
        worker.register_batch(
            "size",
            batching(2, LONG),
            move |tasks: Vec<(u8, Context)>| {
                seen.lock().unwrap().push(tasks.len());
                async move { tasks.into_iter().map(|(n, _)| Ok(n)).collect() }
            },
        )
    });
    let orders = [1, 3, 2].map(|attempt| {
        let mut start = stage.order(&event("size", "1"));
        start.attempt = attempt;
        start
    });
    stage.executor.start(orders.into());
    for _ in 0..3 {
        stage.answer().await;
    }
    let mut sizes = sizes.lock().unwrap().clone();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2]);
}

#[tokio::test]
async fn a_batch_is_dropped_when_none_of_its_tasks_is_wanted_any_more() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let sees = Arc::clone(&dropped);
    let mut stage = Stage::new(|worker| {
        worker.register_batch(
            "hang",
            batching(2, LONG),
            move |tasks: Vec<(u8, Context)>| {
                let guard = Dropped(Arc::clone(&sees));
                async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                    tasks.into_iter().map(|(n, _)| Ok(n)).collect()
                }
            },
        )
    });
    let (one, other) = (stage.start("hang", "1"), stage.start("hang", "2"));
    until("the batch runs", || {
        one.began().is_some() && other.began().is_some()
    })
    .await;
    one.abandon();
    assert!(!dropped.load(Ordering::SeqCst), "the other is still wanted");
    other.abandon();
    until("the batch is dropped", || dropped.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn what_is_cancelled_while_its_batch_gathers_is_not_handed_over() {
    static HANDED: AtomicUsize = AtomicUsize::new(0);
    let mut stage = Stage::new(|worker| {
        worker.register_batch(
            "sum",
            batching(3, LONG),
            async |tasks: Vec<(u8, Context)>| {
                HANDED.fetch_add(tasks.len(), Ordering::SeqCst);
                tasks.into_iter().map(|(n, _)| Ok(n)).collect()
            },
        )
    });
    let orders = ["1", "2", "3"].map(|payload| stage.order(&event("sum", payload)));
    let [wanted, cancelled, abandoned] = orders;
    cancelled.signal.cancel(CancelReason::Requested);
    abandoned.signal.abandon();
    let tickets = [wanted.ticket, cancelled.ticket];
    let filler = stage.order(&event("sum", "4"));
    let last = filler.ticket;
    stage
        .executor
        .start(vec![wanted, cancelled, abandoned, filler]);
    let mut answered = Vec::new();
    for _ in 0..3 {
        answered.push(stage.answer().await.ticket);
    }
    answered.sort_unstable();
    assert_eq!(answered, [tickets[0], tickets[1], last]);
    assert_eq!(HANDED.load(Ordering::SeqCst), 2);
}

//! How attempts are asked to stop, and how they are ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use millrace_consumer::handlers::Signal;
use millrace_consumer::{CancelReason, Context, TaskError};

use super::stage::{Stage, event, retry, until};

/// Says that it was dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_handler_hears_that_it_is_cancelled_and_why() {
    let mut stage = Stage::new(|worker| {
        worker.register("listen", async |_: u8, context: Context| {
            let reason = context.cancelled().await;
            assert_eq!(context.cancel_reason(), Some(reason));
            Err::<(), _>(TaskError::retry(reason))
        })
    });
    for (reason, text) in [
        (CancelReason::Deadline, "its deadline passed"),
        (CancelReason::Timeout, "it ran longer than its type may"),
        (CancelReason::Requested, "its cancellation was requested"),
        (
            CancelReason::PartitionLost,
            "another worker has its partition",
        ),
        (CancelReason::Shutdown, "the worker is shutting down"),
    ] {
        let signal = stage.start("listen", "1");
        until("the handler runs", || signal.began().is_some()).await;
        signal.cancel(reason);
        signal.cancel(CancelReason::Requested);
        assert_eq!(retry(stage.answer().await.end), text);
    }
}

#[tokio::test]
async fn a_handler_in_a_loop_leaves_at_its_next_checkpoint() {
    let mut stage = Stage::new(|worker| {
        worker.register_blocking("loop", |_: u8, context: Context| -> Result<(), TaskError> {
            loop {
                context.checkpoint()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    });
    let signal = stage.start("loop", "1");
    until("the handler runs", || signal.began().is_some()).await;
    signal.cancel(CancelReason::Timeout);
    let error = retry(stage.answer().await.end);
    assert_eq!(error, "stopped: it ran longer than its type may");
}

#[tokio::test]
async fn what_is_cancelled_before_it_began_does_not_begin() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let mut stage = Stage::new(|worker| {
        worker
            .register("async", async |_: u8| {
                CALLS.fetch_add(1, Ordering::SeqCst);
                Ok::<_, TaskError>(())
            })
            .register_blocking("blocking", |_: u8, _| {
                CALLS.fetch_add(1, Ordering::SeqCst);
                Ok::<_, TaskError>(())
            })
    });
    for task_type in ["async", "blocking"] {
        let start = stage.order(&event(task_type, "1"));
        let signal = Arc::clone(&start.signal);
        signal.cancel(CancelReason::Deadline);
        stage.executor.start(vec![start]);
        let error = retry(stage.answer().await.end);
        assert_eq!(error, "not begun: its deadline passed");
        assert!(signal.began().is_none());
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_abandoned_async_handler_is_dropped_and_not_answered() {
    let dropped = Arc::new(AtomicBool::new(false));
    let sees = Arc::clone(&dropped);
    let mut stage = Stage::new(|worker| {
        worker
            .register("hang", move |_: u8| {
                let guard = Dropped(Arc::clone(&sees));
                async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                    Ok::<_, TaskError>(())
                }
            })
            .register("quick", async |n: u8| Ok::<_, TaskError>(n))
    });
    let signal = stage.start("hang", "1");
    until("the handler runs", || signal.began().is_some()).await;
    signal.cancel(CancelReason::Timeout);
    signal.abandon();
    signal.abandon();
    until("the handler is dropped", || dropped.load(Ordering::SeqCst)).await;
    assert_eq!(stage.success("quick", "7").await, "7");
}

#[tokio::test]
async fn an_abandoned_blocking_handler_is_left_alone_and_its_answer_ignored() {
    let (ended, let_go) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (ending, waits_for) = (Arc::clone(&ended), Arc::clone(&let_go));
    let mut stage = Stage::new(|worker| {
        worker
            .register_blocking("hang", move |_: u8, _| {
                while !waits_for.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                ending.store(true, Ordering::SeqCst);
                Ok::<_, TaskError>(())
            })
            .register_blocking("quick", |n: u8, _| Ok::<_, TaskError>(n))
    });
    let signal = stage.start("hang", "1");
    until("the handler runs", || signal.began().is_some()).await;
    signal.abandon();
    let_go.store(true, Ordering::SeqCst);
    until("the handler ends", || ended.load(Ordering::SeqCst)).await;
    assert_eq!(stage.success("quick", "7").await, "7");
}

#[tokio::test]
async fn what_is_abandoned_before_it_began_is_never_heard_of() {
    let mut stage = Stage::new(|worker| {
        worker
            .register("async", async |n: u8| Ok::<_, TaskError>(n))
            .register_blocking("blocking", |n: u8, _| Ok::<_, TaskError>(n))
    });
    let mut starts = Vec::new();
    for task_type in ["async", "blocking"] {
        let start = stage.order(&event(task_type, "1"));
        start.signal.abandon();
        starts.push(start);
    }
    let wanted = stage.order(&event("blocking", "7"));
    let ticket = wanted.ticket;
    starts.push(wanted);
    stage.executor.start(starts);
    assert_eq!(stage.answer().await.ticket, ticket);
}

#[tokio::test]
async fn a_hundred_thousand_cancellations_are_all_heard() {
    const ROUNDS: u32 = 100_000;
    for _ in 0..ROUNDS {
        let signal = Signal::new();
        let listener = Arc::clone(&signal);
        let hears = tokio::spawn(async move { listener.cancelled().await });
        tokio::task::yield_now().await;
        signal.cancel(CancelReason::Shutdown);
        assert_eq!(hears.await.unwrap(), CancelReason::Shutdown);
    }
}

#[tokio::test]
async fn the_end_of_the_executor_drops_handlers_and_waits_for_none() {
    let dropped = Arc::new(AtomicBool::new(false));
    let sees = Arc::clone(&dropped);
    let mut stage = Stage::new(|worker| {
        worker
            .register("hang", move |_: u8| {
                let guard = Dropped(Arc::clone(&sees));
                async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                    Ok::<_, TaskError>(())
                }
            })
            .register_blocking("block", |_: u8, context: Context| {
                while !context.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok::<_, TaskError>(())
            })
    });
    let hanging = stage.start("hang", "1");
    let blocking = stage.start("block", "1");
    until("both run", || {
        hanging.began().is_some() && blocking.began().is_some()
    })
    .await;
    drop(stage);
    until("the handler is dropped", || dropped.load(Ordering::SeqCst)).await;
    blocking.cancel(CancelReason::Shutdown);
}

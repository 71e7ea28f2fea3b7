//! What a handler is told about its task, and what it tells of its progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use millrace_consumer::handlers::NOTE_BYTES;
use millrace_consumer::{Context, TaskError};

use super::stage::{PATIENCE, Stage, event, text};

#[tokio::test]
async fn the_context_tells_all_there_is_to_know() {
    async fn look(_: u8, context: Context) -> Result<String, TaskError> {
        assert_eq!(context.task_type(), "look");
        assert_eq!(context.tenant(), "acme");
        assert_eq!(context.key(), Some("customer-7"));
        assert_eq!((context.run(), context.attempt()), (2, 1));
        assert_eq!(context.content_type(), "application/json");
        assert_eq!(
            context.submitted_at(),
            UNIX_EPOCH + Duration::from_secs(1_700_000_000)
        );
        assert_eq!(
            context.deadline(),
            Some(UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001))
        );
        assert_eq!(context.time_left(), Some(Duration::ZERO));
        assert_eq!(context.header("colour"), Some(b"blue".as_slice()));
        assert_eq!(context.headers().count(), 2);
        assert!(
            context
                .traceparent()
                .is_some_and(|t| t.starts_with("00-4bf9"))
        );
        assert_eq!((context.tracestate(), context.baggage()), (None, None));
        let token = context.fencing_token();
        assert_eq!((token.partition, token.seq), (3, 99));
        assert_eq!(token.to_string(), "3:99");
        assert!(!context.is_cancelled());
        context.checkpoint()?;
        Ok(context.idempotency_key())
    }
    let mut stage = Stage::new(|worker| worker.register("look", look));
    let mut event = event("look", "1");
    event.deadline = Some(1_700_000_000_000_001);
    let start = stage.order(&event);
    stage.executor.start(vec![start]);
    assert_eq!(
        text(stage.answer().await.end),
        format!("\"{}-2\"", event.task_id)
    );
}

#[tokio::test]
async fn only_the_latest_word_on_progress_is_on_its_way() {
    let go_on = Arc::new(AtomicBool::new(false));
    let waits_for = Arc::clone(&go_on);
    let mut stage = Stage::new(|worker| {
        worker.register_blocking("report", move |_: u8, context: Context| {
            for step in 0..10_000_u16 {
                context.progress(f32::from(step) / 10_000.0, &format!("step {step}"));
            }
            context.progress(7.5, &"n".repeat(10 * NOTE_BYTES));
            while !waits_for.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            context.progress(f32::NAN, "odd\0");
            Ok::<_, TaskError>(())
        })
    });
    let signal = stage.start("report", "1");
    super::stage::until("the handler runs", || signal.began().is_some()).await;
    let mut notes = Vec::new();
    while notes.last().is_none_or(|fraction| *fraction < 1.0) {
        let note = tokio::time::timeout(PATIENCE, stage.notes.recv()).await;
        let note = note.unwrap().unwrap();
        assert!(note.note.len() <= NOTE_BYTES);
        notes.push(note.fraction);
    }
    assert!(notes.is_sorted(), "never back");
    go_on.store(true, Ordering::SeqCst);
    let last = stage.notes.recv().await.unwrap();
    assert_eq!((last.fraction, &*last.note), (0.0, "odd\u{FFFD}"));
    assert_eq!(last.ticket, stage.answer().await.ticket);
    assert_eq!(stage.notes.try_recv(), None);
}

#[tokio::test]
async fn reports_that_nobody_takes_do_not_pile_up() {
    let mut stage = Stage::new(|worker| {
        worker.register("report", async |_: u8, context: Context| {
            for _ in 0..1_000 {
                context.progress(0.5, "half");
            }
            Ok::<_, TaskError>(())
        })
    });
    for _ in 0..10 {
        stage.start("report", "1");
        stage.answer().await;
    }
    let mut notes = 0;
    while stage.notes.try_recv().is_some() {
        notes += 1;
    }
    assert_eq!(notes, 10, "one an attempt");
}

//! The sending side of `emit`: rows in, events out, acknowledgements back.
//!
//! One thread does it all, in turns: take rows, submit them, collect reports. It never blocks on
//! input, broker or pace for longer than a moment, so signals and reports are always seen. When
//! anything stops the reading, what was sent before is waited for, so that the report at the end
//! can say up to which line everything is acknowledged.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_schemas::{TaskEventRef, TaskId};
use millrace_telemetry::{EmitMetrics, LatencyBatch};

use super::acknowledged::{Acknowledged, Place};
use super::batch::{Batch, Row};
use super::digest::dedup_key;
use super::ending::{FileEnd, Report, Stop};
use super::interrupt::Interrupt;
use super::misfit::{Misfit, MisfitKind};
use super::pace::Pace;
use super::plan::Plan;
use super::progress::Progress;
use super::rejects::Rejects;
use super::rows::{Finished, Message, Reading, Rows};
use super::summary::Summary;
use crate::delivery::Delivery;
use crate::submitter::{Submitted, Submitter};
use crate::wire::SubmitError;

/// Media type of every payload.
const CONTENT_TYPE: &str = "application/json";
/// Events that may be sent beyond the oldest unanswered one.
const WINDOW: usize = 500_000;
/// Rows between two looks at reports and signals.
const ROWS_PER_TURN: usize = 64;
/// The longest wait for input before reports and signals are looked at again.
const TURN: Duration = Duration::from_millis(20);
/// The wait for room in the client's queue, and for reports at the end.
const MOMENT: Duration = Duration::from_millis(1);
/// How long an interrupted `emit` waits for what is in flight.
const GRACE: Duration = Duration::from_secs(5);

/// One `emit` at work.
pub struct Emit<'a> {
    pub(super) plan: &'a Plan,
    pub(super) submitter: Submitter,
    pub(super) rejects: Option<Rejects>,
    interrupt: Interrupt,
    pub(super) metrics: EmitMetrics,
    pub(super) latencies: LatencyBatch,
    rows: Rows,
    pace: Option<Pace>,
    progress: Progress,
    pub(super) acknowledged: Acknowledged,
    pub(super) summary: Summary,
    files: Vec<FileEnd>,
    pub(super) stop: Option<Stop>,
    /// Digest of the current file, with `--once`.
    digest: Option<String>,
    /// Reused from event to event.
    dedup_key: String,
    /// When the current turn began, in microseconds since the Unix epoch: the clock is read once
    /// for all events of a turn, which together take a fraction of a millisecond.
    now: i64,
    /// Reused from turn to turn.
    pub(super) deliveries: Vec<Delivery>,
    /// What the counters have been told of `summary`.
    pub(super) told: Summary,
}

impl<'a> Emit<'a> {
    /// Starts the reading thread and gets ready to send.
    pub fn new(
        plan: &'a Plan,
        submitter: Submitter,
        rejects: Option<Rejects>,
        interrupt: Interrupt,
        metrics: EmitMetrics,
    ) -> io::Result<Self> {
        let reading = Reading {
            inputs: plan.inputs.clone(),
            format: plan.format,
            from_line: plan.from_line,
            fields: plan.fields.clone(),
            limit: plan.max_event_bytes,
            digest: plan.once,
        };
        let now = Instant::now();
        Ok(Emit {
            plan,
            submitter,
            rejects,
            rows: Rows::start(reading, interrupt.clone())?,
            interrupt,
            metrics,
            latencies: LatencyBatch::default(),
            pace: plan.rate.and_then(|rate| Pace::new(rate, now)),
            progress: Progress::begin(
                plan.inputs.iter().map(super::source::Input::size).sum(),
                now,
            ),
            acknowledged: Acknowledged::new(plan.inputs.len(), WINDOW),
            summary: Summary::default(),
            files: vec![FileEnd::default(); plan.inputs.len()],
            stop: None,
            digest: None,
            dedup_key: String::new(),
            now: unix_micros(),
            deliveries: Vec::new(),
            told: Summary::default(),
        })
    }

    /// Sends everything, waits for the acknowledgements and tells how it ended.
    pub fn run(mut self) -> Report {
        let started = Instant::now();
        let mut file = 0;
        let mut finished = false;
        while self.stop.is_none() && !finished {
            match self.rows.next(TURN) {
                Err(Finished) => finished = true,
                Ok(None) => {}
                Ok(Some(Message::Begin {
                    file: begun,
                    digest,
                })) => {
                    file = begun;
                    self.digest = digest;
                }
                Ok(Some(Message::Rows(batch))) => {
                    self.batch(file, &batch);
                    self.rows.recycle(batch);
                }
                Ok(Some(Message::End { file })) => {
                    if let Some(end) = self.files.get_mut(file) {
                        end.ended = true;
                    }
                }
                Ok(Some(Message::Broken { file, error })) => {
                    self.stop = Some(Stop::Unreadable { file, error })
                }
            }
            self.turn();
        }
        if finished && let Some(file) = self.files.iter().position(|end| !end.ended) {
            let error = io::Error::other("the reading ended early");
            self.stop.get_or_insert(Stop::Unreadable { file, error });
        }
        self.drain();
        self.progress.end();
        self.report(started.elapsed())
    }

    fn report(mut self, took: Duration) -> Report {
        for (file, end) in self.files.iter_mut().enumerate() {
            end.through = self.acknowledged.through(file);
        }
        let mut left = None;
        for place in self.acknowledged.left_behind() {
            let (count, first, _) = left.unwrap_or((0, place, place));
            left = Some((count + 1, first, place));
        }
        Report {
            summary: self.summary.timed(took.as_secs_f64()),
            stop: self.stop,
            files: self.files,
            left,
            beyond: self.acknowledged.last_beyond(),
        }
    }

    fn batch(&mut self, file: usize, batch: &Batch) {
        for (index, row) in batch.rows.iter().enumerate() {
            if index % ROWS_PER_TURN == 0 {
                self.turn();
            }
            if self.stop.is_some() || !self.in_pace() {
                return;
            }
            self.row(file, batch, row);
        }
    }

    /// Looks at everything that is not input: reports, rejects, signals, progress.
    fn turn(&mut self) {
        self.collect();
        if let Some(rejects) = &mut self.rejects
            && let Err(error) = rejects.flush()
        {
            let path = rejects.path().to_owned();
            self.stop.get_or_insert(Stop::Rejects { path, error });
        }
        if self.interrupt.requested() {
            self.stop.get_or_insert(Stop::Interrupted);
        }
        self.now = unix_micros();
        let now = Instant::now();
        self.progress.show(now, &self.summary, self.rows.taken());
    }

    /// Waits until the pace allows an event; false when something stopped the sending.
    fn in_pace(&mut self) -> bool {
        while let Some(pace) = &mut self.pace {
            match pace.take(Instant::now()) {
                Ok(()) => break,
                Err(wait) => std::thread::sleep(wait.min(TURN)),
            }
            self.turn();
            if self.stop.is_some() {
                return false;
            }
        }
        true
    }

    fn row(&mut self, file: usize, batch: &Batch, row: &Row) {
        let plan = self.plan;
        let place = Place {
            file,
            line: row.line,
        };
        self.summary.read += 1;
        if let Some(end) = self.files.get_mut(file) {
            end.read = Some(row.line);
        }
        let raw = batch.text(&row.raw);
        let found = match &row.event {
            Ok(event) => event,
            Err(fault) => return self.reject(place, fault.misfit.clone(), raw),
        };
        let mut line_key = std::mem::take(&mut self.dedup_key);
        let dedup = match &self.digest {
            Some(digest) => {
                dedup_key(digest, row.line, &mut line_key);
                Some(line_key.as_str())
            }
            None => batch.key(found.dedup.as_ref()),
        };
        let event = TaskEventRef {
            task_id: TaskId::mint(),
            task_type: &plan.task_type,
            tenant: &plan.tenant,
            key: batch.key(found.key.as_ref()),
            dedup_key: dedup,
            submitted_at: self.now,
            run_at: None,
            deadline: None,
            content_type: CONTENT_TYPE,
            reply: false,
            callback: None,
            payload: batch.text(&found.payload),
        };
        self.send(place, &event, raw);
        self.dedup_key = line_key;
    }

    /// Submits an event, waiting for room as long as it takes.
    fn send(&mut self, place: Place, event: &TaskEventRef<'_>, raw: &[u8]) {
        loop {
            let submitted = if self.acknowledged.is_full() {
                Ok(Submitted::Full)
            } else {
                self.submitter
                    .submit(event, self.acknowledged.next_ticket())
            };
            match submitted {
                Ok(Submitted::Queued) => {
                    self.acknowledged.sent(place);
                    return;
                }
                Ok(Submitted::Full) => {
                    std::thread::sleep(MOMENT);
                    self.turn();
                    if self.stop.is_some() {
                        self.summary.read -= 1;
                        return;
                    }
                }
                Err(SubmitError::Fatal(reason)) => {
                    self.summary.read -= 1;
                    self.stop.get_or_insert(Stop::Broker { reason });
                    return;
                }
                Err(error) => {
                    let kind = match error {
                        SubmitError::TooLarge { .. } => MisfitKind::TooLarge,
                        _ => MisfitKind::Other,
                    };
                    return self.reject(
                        place,
                        Misfit {
                            kind,
                            column: 1,
                            reason: error.to_string(),
                        },
                        raw,
                    );
                }
            }
        }
    }

    /// Waits for what is in flight; after an interrupt only for a while.
    fn drain(&mut self) {
        let mut given_up = false;
        let mut until = None;
        while self.submitter.in_flight() > 0 {
            self.turn();
            let now = Instant::now();
            if self.interrupt.requested() && now >= *until.get_or_insert(now + GRACE) {
                if given_up {
                    break;
                }
                self.submitter.give_up();
                given_up = true;
                until = Some(now + GRACE);
            }
            std::thread::sleep(MOMENT);
        }
        self.turn();
    }
}

fn unix_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

//! The sending side of `emit`: rows in, events out, acknowledgements back.
//!
//! One thread does it all, in turns: take rows, submit them, collect reports. It never blocks on
//! input, broker or pace for longer than a moment, so signals and reports are always seen. When
//! anything stops the reading, what was sent before is waited for, so that the report at the end
//! can say up to which line everything is acknowledged.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_schemas::{Decoders, Framing, TaskEventRef, TaskId};
use millrace_telemetry::{EmitMetrics, LatencyBatch};

use super::acknowledged::{Acknowledged, Place, Settled};
use super::digest::dedup_key;
use super::ending::{FileEnd, Report, Stop};
use super::interrupt::Interrupt;
use super::misfit::{Misfit, MisfitKind};
use super::pace::Pace;
use super::plan::Plan;
use super::progress::Progress;
use super::rejects::Rejects;
use super::rows::{Batch, Finished, Message, Reading, Row, Rows, Text};
use super::summary::Summary;
use crate::delivery::{Delivery, DeliveryFailure, Undelivered};
use crate::submitter::{SubmitError, Submitted, Submitter};

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
    plan: &'a Plan,
    submitter: Submitter,
    rejects: Option<Rejects>,
    interrupt: Interrupt,
    metrics: EmitMetrics,
    latencies: LatencyBatch,
    rows: Rows,
    pace: Option<Pace>,
    progress: Progress,
    acknowledged: Acknowledged,
    summary: Summary,
    files: Vec<FileEnd>,
    stop: Option<Stop>,
    /// Digest of the current file, with `--once`.
    digest: Option<String>,
    /// Reused from event to event.
    dedup_key: String,
    /// Reused from turn to turn.
    deliveries: Vec<Delivery>,
    /// What the counters have been told of `summary`.
    told: Summary,
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
        let text = match &row.event {
            Ok(text) => text,
            Err(fault) => return self.reject(place, fault.misfit.clone(), raw),
        };
        let payload = batch.text(text);
        let picked = match plan.fields.read(payload) {
            Ok(picked) => picked,
            Err(mut misfit) => {
                // A column of the JSON made from a CSV row says nothing about the row.
                if matches!(text, Text::Made(_)) {
                    misfit.column = 1;
                }
                return self.reject(place, misfit, raw);
            }
        };
        let mut line_key = std::mem::take(&mut self.dedup_key);
        let dedup = match &self.digest {
            Some(digest) => {
                dedup_key(digest, row.line, &mut line_key);
                Some(line_key.as_str())
            }
            None => picked.dedup.as_deref(),
        };
        let event = TaskEventRef {
            task_id: TaskId::mint(),
            task_type: &plan.task_type,
            tenant: &plan.tenant,
            key: picked.key.as_deref(),
            dedup_key: dedup,
            submitted_at: unix_micros(),
            run_at: None,
            deadline: None,
            content_type: CONTENT_TYPE,
            reply: false,
            callback: None,
            payload,
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

    fn reject(&mut self, place: Place, misfit: Misfit, raw: &[u8]) {
        if self.write_down(place, &misfit, raw) {
            self.acknowledged.rejected(place);
        } else {
            self.stop.get_or_insert(Stop::Rejected { place, misfit });
        }
    }

    /// Counts a rejected line and writes it into the rejects file; false when there is none, or it
    /// cannot be written.
    fn write_down(&mut self, place: Place, misfit: &Misfit, raw: &[u8]) -> bool {
        self.summary.rejected += 1;
        self.metrics.rejected(misfit.kind.label());
        let name = self
            .plan
            .inputs
            .get(place.file)
            .map_or_else(String::new, ToString::to_string);
        let Some(rejects) = &mut self.rejects else {
            return false;
        };
        match rejects.write(&name, place.line, misfit, raw) {
            Ok(()) => true,
            Err(error) => {
                let path = rejects.path().to_owned();
                self.stop.get_or_insert(Stop::Rejects { path, error });
                false
            }
        }
    }

    /// Takes in the reports that have arrived.
    fn collect(&mut self) {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.submitter.deliveries(&mut deliveries);
        for Delivery { ticket, outcome } in deliveries.drain(..) {
            let settled = match outcome {
                Ok(()) => {
                    self.summary.acknowledged += 1;
                    self.acknowledged
                        .settle(ticket, Settled::Acknowledged)
                        .map(drop)
                }
                Err(undelivered) => self.undelivered(ticket, &undelivered),
            };
            if let Err(error) = settled {
                tracing::error!(%error, "the Kafka client reported twice on an event");
            }
        }
        self.deliveries = deliveries;
        if let Some(latency) = self.submitter.take_latency() {
            self.latencies.record(latency);
            self.metrics.acknowledge_latencies(&mut self.latencies);
            self.metrics
                .queue_messages(usize::try_from(self.submitter.in_flight()).unwrap_or(usize::MAX));
        }
        self.metrics
            .read(self.summary.read.saturating_sub(self.told.read));
        self.metrics
            .acknowledged(self.summary.acknowledged - self.told.acknowledged);
        self.told = self.summary;
    }

    fn undelivered(
        &mut self,
        ticket: u64,
        undelivered: &Undelivered,
    ) -> Result<(), super::acknowledged::NotOpen> {
        let failure = undelivered.failure;
        match failure {
            DeliveryFailure::Refused(_) => return self.refused(ticket, undelivered),
            DeliveryFailure::Unknown(_) => {
                self.summary.unknown += 1;
                self.stop.get_or_insert(Stop::Unanswered {
                    reason: failure.to_string(),
                });
            }
            DeliveryFailure::NotSent => self.summary.not_sent += 1,
            DeliveryFailure::Stopped(_) => {
                self.summary.not_sent += 1;
                let reason = self
                    .submitter
                    .fatal_error()
                    .unwrap_or_else(|| failure.to_string());
                self.stop.get_or_insert(Stop::Broker { reason });
            }
        }
        self.acknowledged.settle(ticket, Settled::Stuck).map(drop)
    }

    fn refused(
        &mut self,
        ticket: u64,
        undelivered: &Undelivered,
    ) -> Result<(), super::acknowledged::NotOpen> {
        let reason = undelivered.failure.to_string();
        let misfit = Misfit {
            kind: MisfitKind::TooLarge,
            column: 1,
            reason,
        };
        let decoders = match self.submitter.framing() {
            Framing::SingleObject => Decoders::new(),
            Framing::Confluent { schema_id } => Decoders::new().with_confluent_id(schema_id),
        };
        let decoded = decoders.decode(&undelivered.record);
        let raw = decoded.as_ref().map_or_else(
            |_| Cow::default(),
            |event| Cow::Borrowed(event.event().payload),
        );
        let end = if self.rejects.is_some() {
            Settled::Rejected
        } else {
            Settled::Stuck
        };
        let place = self.acknowledged.settle(ticket, end)?;
        if !self.write_down(place, &misfit, &raw) {
            self.stop.get_or_insert(Stop::Refused { place, misfit });
        }
        Ok(())
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

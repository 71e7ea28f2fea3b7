//! The demo from the first worker to the last answer.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::{Instant, sleep};

use super::audit::audit;
use super::books::{self, Books};
use super::emission::Emission;
use super::kill::{Killed, kill};
use super::lines::Comparison;
use super::log_ends::LogEnds;
use super::place::Place;
use super::progress::Screen;
use super::summary::{Figures, Report};
use super::words::{grouped, listed, time};
use super::workers::{Crew, NAMES, Worker};
use super::{DemoError, Plan, queries};
use crate::PARTITIONS;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longer than a session and a start of a worker together.
const STALL: Duration = Duration::from_secs(60);
/// How long the killed worker is not replaced.
const EMPTY_CHAIR: Duration = Duration::from_secs(1);

/// Plays the demo.
///
/// # Errors
/// When something ended that should not have, does not answer, or nothing moves.
pub async fn play(
    plan: &Plan,
    place: &Place,
    lines: &[String],
    crew: &mut Crew,
    screen: &mut Screen,
) -> Result<Report, DemoError> {
    let expected = i64::try_from(lines.len() + plan.sent_again).unwrap_or(i64::MAX);
    let mut stage = Stage {
        plan,
        place,
        crew,
        screen,
        connection: place.connect().await?,
        ends: LogEnds::of(place)?,
        emission: None,
        look: Look::default(),
        expected,
    };
    stage
        .screen
        .say("both are running, the tables are made; starting two workers");
    stage.hire_two().await?;

    let began = Instant::now();
    stage.send(lines.len(), 1)?;
    let half = i64::try_from(lines.len() / 2).unwrap_or_default();
    stage
        .until("half of the results", |look| look.books.results >= half)
        .await?;
    let (killed, taken_over) = stage.kill_and_replace().await?;
    stage
        .until("the end of the file", |look| !look.sending)
        .await?;
    stage.send(
        lines.len(),
        lines.len() + 1 - plan.sent_again.min(lines.len()),
    )?;
    stage
        .until("the last result", |look| {
            !look.sending && look.books.settled == look.sent
        })
        .await?;
    let took = began.elapsed();
    stage
        .screen
        .say("everything that was sent has its outcome in Postgres");

    let Stage {
        mut connection,
        look,
        ..
    } = stage;
    screen.say("checking: each line against the table, and the whole log against the books");
    let comparison = Comparison::of(lines, &books::results(&mut connection).await?);
    let audit = audit(plan, place).await?;
    let figures = Figures {
        lines: lines.len(),
        sent_again: plan.sent_again,
        sent: look.sent,
        results: look.books.results,
        duplicates: look.books.duplicates,
        others: look.books.others,
        comparison,
        read_again: killed.unwritten,
        taken_over,
        session: plan.session(),
        took,
        rate: plan.rate,
        latency: books::latency(&mut connection, &killed.partitions).await?,
    };
    let answers = queries::ask(&mut connection).await?;
    Ok(Report::new(figures, audit, answers, plan))
}

/// What is seen at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Records in Kafka's log.
    pub sent: i64,
    /// The books in Postgres.
    pub books: Books,
    /// The producer runs.
    pub sending: bool,
    /// Workers alive.
    pub workers: usize,
}

/// Everything that takes part, and the screen on which it is shown.
struct Stage<'a> {
    plan: &'a Plan,
    place: &'a Place,
    crew: &'a mut Crew,
    screen: &'a mut Screen,
    connection: PgConnection,
    ends: LogEnds,
    emission: Option<Emission>,
    look: Look,
    expected: i64,
}

impl Stage<'_> {
    async fn hire_two(&mut self) -> Result<(), DemoError> {
        let [first, second, _] = NAMES;
        for name in [first, second] {
            self.crew.join(Worker::start(self.plan, self.place, name)?);
        }
        let pids: Vec<u32> = self.crew.iter().map(Worker::pid).collect();
        let shares = |look: &Look| {
            let share = |pid: &u32| look.books.held_by(*pid).len();
            pids.iter().map(share).collect::<Vec<_>>()
        };
        let all = usize::try_from(PARTITIONS).unwrap_or_default();
        self.until("two workers that share the partitions", |look| {
            let shares = shares(look);
            shares.iter().sum::<usize>() == all && !shares.contains(&0)
        })
        .await?;
        let shares: Vec<String> = shares(&self.look).iter().map(ToString::to_string).collect();
        self.screen.say(&format!(
            "{first} and {second} have joined and share the {PARTITIONS} partitions: {}",
            listed(&shares)
        ));
        Ok(())
    }

    fn send(&mut self, lines: usize, from_line: usize) -> Result<(), DemoError> {
        let count = i64::try_from(lines + 1 - from_line).unwrap_or_default();
        self.emission = Some(Emission::start(self.plan, self.place, from_line)?);
        self.look.sending = true;
        self.screen.say(&if from_line == 1 {
            format!(
                "sending the file's {} lines, {} a second",
                grouped(count),
                grouped(self.plan.rate.into())
            )
        } else {
            format!(
                "all is sent; now the last {} once more, as when a run dies and is simply repeated",
                grouped(count)
            )
        });
        Ok(())
    }

    /// Kills the second worker, lets its chair stay empty for a moment, starts a third one. Says
    /// how long the killed one's partitions had nobody.
    async fn kill_and_replace(&mut self) -> Result<(Killed, Duration), DemoError> {
        let [_, second, third] = NAMES;
        let Some(worker) = self.crew.take(second) else {
            return Err(DemoError::Stalled {
                what: "a worker to kill",
                limit: Duration::ZERO,
                logs: self.place.logs().clone(),
            });
        };
        let killed = kill(worker, &mut self.connection).await?;
        let partitions = killed.partitions.len();
        self.screen.say(&match killed.unwritten {
            0 => format!("{second} killed with SIGKILL; {partitions} partitions in its hands"),
            events => format!(
                "{second} killed with SIGKILL; {partitions} partitions and at least {} unwritten events in its hands",
                grouped(events)
            ),
        });
        let others = |look: &Look| {
            let lost = |partition: &i32| killed.partitions.contains(partition);
            look.books
                .partitions
                .iter()
                .filter(|book| lost(&book.partition))
                .all(|book| book.owner.is_some_and(|owner| owner != killed.pid))
        };
        let chair = killed.at + EMPTY_CHAIR;
        self.until("a second to pass", |look| {
            others(look) || Instant::now() >= chair
        })
        .await?;
        self.crew.join(Worker::start(self.plan, self.place, third)?);
        self.screen.say(&format!("{third} started in its place"));
        self.until("the take-over of the killed worker's partitions", others)
            .await?;
        let taken_over = killed.at.elapsed();
        self.screen.say(&format!(
            "the killed worker's partitions are in other hands, {} after the kill",
            time(taken_over)
        ));
        Ok((killed, taken_over))
    }

    /// Watches until something is seen.
    async fn until(
        &mut self,
        what: &'static str,
        seen: impl Fn(&Look) -> bool,
    ) -> Result<(), DemoError> {
        let mut moved = Instant::now();
        loop {
            self.crew.check()?;
            // In this order: what is asked last is never behind.
            let sending = self.is_sending()?;
            let books = books::read(&mut self.connection).await?;
            let look = Look {
                sent: self.ends.total().await?,
                books,
                sending,
                workers: self.crew.len(),
            };
            if look != self.look {
                moved = Instant::now();
                self.look = look;
            }
            self.screen.show(&self.look, self.expected);
            if seen(&self.look) {
                return Ok(());
            }
            if moved.elapsed() >= STALL {
                return Err(DemoError::Stalled {
                    what,
                    limit: STALL,
                    logs: self.place.logs().clone(),
                });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn is_sending(&mut self) -> Result<bool, DemoError> {
        if let Some(emission) = &mut self.emission
            && emission.ended()?
        {
            self.emission = None;
        }
        Ok(self.emission.is_some())
    }
}

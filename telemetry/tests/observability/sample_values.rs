//! A process in which everything that can be measured happens.

use millrace_telemetry::{
    AttemptOutcome, BrokerErrorKind, BrokerMetrics, ClaimResult, ConsumerMetrics,
    DatabaseErrorKind, DatabaseMetrics, DoorMetrics, DoorOutcome, DoorRoute, EmitMetrics,
    HandlerMetrics, Health, LatencyBatch, OutboxKind, OutboxMetrics, Outcome, PartitionMetrics,
    PolicyMetrics, Pressure, RebalanceEvent, RedoPath, build_info, serve,
};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

const TURN: Duration = Duration::from_millis(100);

/// The listener of this process, with values that move; started by whoever asks first.
pub(crate) fn listener() -> SocketAddr {
    static BOUND: OnceLock<SocketAddr> = OnceLock::new();
    *BOUND.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let health = Health::awaiting(&["kafka", "database"]);
            health.ready("kafka", Ok(()));
            health.ready("database", Ok(()));
            let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
            let bound = runtime
                .block_on(serve(any_port, health, CancellationToken::new()))
                .expect("a free port");
            let mut process = Process::new();
            process.turn();
            sender.send(bound).expect("somebody waits");
            loop {
                thread::sleep(TURN);
                process.turn();
            }
        });
        receiver.recv().expect("the listener started")
    })
}

struct Process {
    turns: u64,
    consumer: ConsumerMetrics,
    partitions: Vec<PartitionMetrics>,
    handlers: HandlerMetrics,
    outbox: OutboxMetrics,
    policies: PolicyMetrics,
    database: DatabaseMetrics,
    broker: BrokerMetrics,
    emit: EmitMetrics,
    door: DoorMetrics,
}

impl Process {
    fn new() -> Process {
        build_info("2.12.1");
        let consumer = ConsumerMetrics::new("workers", "tasks", &["record"]);
        Process {
            turns: 0,
            partitions: (0..3)
                .map(|partition| consumer.partition(partition))
                .collect(),
            consumer,
            handlers: HandlerMetrics::new(&["record"]),
            outbox: OutboxMetrics::new(),
            policies: PolicyMetrics::new(),
            database: DatabaseMetrics::new(),
            broker: BrokerMetrics::new(),
            emit: EmitMetrics::new("tasks"),
            door: DoorMetrics::new(),
        }
    }

    fn turn(&mut self) {
        self.turns += 1;
        self.consume();
        self.work();
        self.wait();
        self.flush();
        self.emit();
        self.take_requests();
    }

    fn consume(&mut self) {
        let offset = i64::try_from(self.turns * 100).expect("a small number");
        for partition in &self.partitions {
            partition.log_end(offset + 40);
            partition.position(offset);
            partition.committed(offset - 10);
            partition.lag(Some((40, 0.25)));
            partition.stopped(false);
            partition.parked(12);
            partition.frontier_age(TURN);
        }
        self.consumer.tasks("record", Outcome::Success, 280);
        self.consumer
            .tasks("somebody's own type", Outcome::Success, 15);
        self.consumer.tasks("record", Outcome::Duplicate, 3);
        for outcome in [
            Outcome::Failed,
            Outcome::Cancelled,
            Outcome::Expired,
            Outcome::DeadLetter,
            Outcome::Parked,
        ] {
            self.consumer.tasks_of(0, outcome, 2);
        }
        self.consumer.duplicates(3);
        self.consumer.dead_letters("undecodable", 1);
        self.consumer.dead_letters("a reason nobody documented", 1);
        self.consumer.gaps(1);
        self.consumer.rebalance(RebalanceEvent::Assigned);
        self.consumer.rebalance(RebalanceEvent::Revoked);
        self.consumer.rebalance(RebalanceEvent::Lost);
        self.consumer.partitions_owned(self.partitions.len());
        self.consumer.in_flight(1_000, 200_000);
        self.consumer.in_flight_limit(50_000, 64_000_000);
        self.consumer.held_back(Pressure::Soft, TURN / 4);
        self.consumer.held_back(Pressure::Hard, TURN / 50);
        let mut latencies = LatencyBatch::default();
        for record in 0..300 {
            latencies.record_micros(1_500 + record * 60);
        }
        self.consumer.end_to_end(&mut latencies);
    }

    fn work(&self) {
        let mut attempts = self.handlers.batch();
        for (at, outcome) in [
            AttemptOutcome::Success,
            AttemptOutcome::Retry,
            AttemptOutcome::Permanent,
            AttemptOutcome::Panic,
            AttemptOutcome::Timeout,
            AttemptOutcome::Cancelled,
            AttemptOutcome::Abandoned,
        ]
        .into_iter()
        .enumerate()
        {
            attempts.record(0, outcome, TURN / 10);
            attempts.record(at, outcome, TURN / 20);
        }
        self.handlers.attempts(&mut attempts);
        self.handlers.running_limit(1_024);
        self.handlers.of(0).running(7);
        self.handlers.of(0).running_limit(100);
        let mut waits = LatencyBatch::default();
        waits.record(TURN / 50);
        self.handlers.waits(&mut waits);
        self.policies.loaded(SystemTime::now());
        self.policies.refused();
    }

    fn wait(&self) {
        for kind in ["retry", "behind", "delayed", "running", "redrive"] {
            self.consumer.parked(kind, 2);
        }
        self.consumer.woken(9);
        self.consumer.partition_parked_limit(1_000_000);
        self.consumer.lanes(40);
        self.consumer.waiting_retries(3);
        self.consumer.careful_partitions(1);
        self.consumer.pauses(1, 2);
        let pending = Some((4, Duration::from_secs(2)));
        self.outbox.backlog(pending);
        self.outbox.sent(OutboxKind::DeadLetterCopy, 3);
        self.outbox.failed(OutboxKind::DeadLetterCopy, 1);
        self.outbox.sent(OutboxKind::Callback, 2);
        self.outbox.failed(OutboxKind::Callback, 1);
    }

    fn flush(&self) {
        self.database.flush(Duration::from_millis(12), 295, 60_000);
        for kind in [
            DatabaseErrorKind::Outage,
            DatabaseErrorKind::Conflict,
            DatabaseErrorKind::Refused,
            DatabaseErrorKind::FenceLost,
            DatabaseErrorKind::UnknownCommit,
        ] {
            self.database.error(kind);
        }
        self.database.fence_losses(1);
        for result in [
            ClaimResult::Claimed,
            ClaimResult::Stopped,
            ClaimResult::Failed,
        ] {
            self.database.claim(result);
        }
        for path in [RedoPath::OnConflict, RedoPath::Smaller, RedoPath::Same] {
            self.database.redo(path);
        }
        self.database.maintained(SystemTime::now(), 1, 1);
        self.database.maintenance_failed();
        for kind in [
            BrokerErrorKind::Connection,
            BrokerErrorKind::Timeout,
            BrokerErrorKind::Authorization,
            BrokerErrorKind::Fatal,
            BrokerErrorKind::Other,
        ] {
            self.broker.error(kind);
        }
    }

    fn emit(&self) {
        self.emit.read(100);
        self.emit.acknowledged(98);
        self.emit.rejected("too_large");
        self.emit.queue_messages(20);
        let mut latencies = LatencyBatch::default();
        latencies.record(Duration::from_millis(7));
        self.emit.acknowledge_latencies(&mut latencies);
    }

    fn take_requests(&self) {
        for (route, status) in [
            (DoorRoute::Submit, 202),
            (DoorRoute::SubmitMany, 200),
            (DoorRoute::Status, 200),
            (DoorRoute::Result, 404),
            (DoorRoute::Cancel, 503),
            (DoorRoute::Watch, 101),
            (DoorRoute::Other, 304),
        ] {
            self.door.answered(route, status, TURN / 25);
        }
        for outcome in [
            DoorOutcome::Accepted,
            DoorOutcome::Repeated,
            DoorOutcome::Refused,
            DoorOutcome::Unknown,
        ] {
            self.door.tasks(outcome, 5);
        }
        self.door.standing(30, 20_000, 12);
    }
}

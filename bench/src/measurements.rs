//! What was measured, and the figures that follow from it.

use serde::Serialize;

use crate::door::{DoorLoads, DoorResults};
use crate::emit::Emitted;
use crate::latency::Latencies;
use crate::pipeline::Drained;
use crate::work::Worked;

/// All rounds of all measurements; what was not asked for is empty.
#[derive(Debug, Default, Serialize)]
pub struct Measurements {
    /// Events in a backlog.
    pub events: u64,
    /// Bytes of an encoded event, on average.
    pub event_bytes: Option<f64>,
    /// Bytes of an encoded event with a deduplication key, on average.
    pub dedup_event_bytes: Option<f64>,
    /// Bytes of a row in the COPY stream, on average.
    pub row_bytes: Option<f64>,
    /// Seconds of each bare COPY over one connection.
    pub copy_seconds: Vec<f64>,
    /// Seconds of each bare COPY over two connections.
    pub copy2_seconds: Vec<f64>,
    /// Seconds of each raw drain.
    pub drain_seconds: Vec<f64>,
    /// Each run of the pipeline.
    pub pipeline: Vec<Drained>,
    /// Each run of the pipeline with deduplication keys.
    pub dedup: Vec<Drained>,
    /// Each run of `emit`.
    pub emit: Vec<Emitted>,
    /// Seconds of each bare produce loop.
    pub produce_seconds: Vec<f64>,
    /// From submit to committed result.
    pub latency: Option<Latencies>,
    /// What goes through lanes.
    pub lanes: LaneRuns,
    /// The front door: callers that submit.
    pub door_loads: Option<DoorLoads>,
    /// The front door: callers that wait.
    pub door_results: Option<DoorResults>,
}

/// All rounds of what goes through lanes.
#[derive(Debug, Default, Serialize)]
pub struct LaneRuns {
    /// Seconds of each pass through lanes, ledger and outcome on one processor.
    pub core_seconds: Vec<f64>,
    /// The same with the executor and an empty handler.
    pub executor_seconds: Vec<f64>,
    /// Each run of a worker with an empty handler on the pipeline's backlog.
    pub empty: Vec<Drained>,
    /// The same with a handler whose result is the payload.
    pub echo: Vec<Drained>,
    /// The empty handler on the same events without keys.
    pub keyless: Vec<Drained>,
    /// The empty handler on the backlog with deduplication keys.
    pub dedup: Vec<Drained>,
    /// Each run on tasks of a few milliseconds' work.
    pub work: Vec<Worked>,
}

/// The figures that are reported; the names are fixed. `None` was not measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    /// Bare binary COPY over one connection.
    pub copy_rows_per_s: Option<f64>,
    /// Bare binary COPY over two connections.
    pub copy2_rows_per_s: Option<f64>,
    /// rdkafka alone, reading.
    pub drain_events_per_s: Option<f64>,
    /// The pipeline.
    pub pipeline_events_per_s: Option<f64>,
    /// The pipeline with a deduplication key on each event and 1 % duplicates.
    pub pipeline_dedup_events_per_s: Option<f64>,
    /// `producer emit`.
    pub emit_events_per_s: Option<f64>,
    /// rdkafka alone, producing.
    pub produce_events_per_s: Option<f64>,
    /// From submit to committed result.
    pub latency_p50_ms: Option<f64>,
    /// From submit to committed result.
    pub latency_p99_ms: Option<f64>,
    /// Most memory of the worker in any run of the pipeline without deduplication keys.
    pub worker_peak_rss_mib: Option<f64>,
    /// The pipeline in parts of the bare COPY over one connection.
    pub ratio_pipeline_to_copy: Option<f64>,
    /// Lanes, ledger and outcome without I/O, on one processor.
    pub lanes_core_tasks_per_s: Option<f64>,
    /// The same with the executor and an empty async handler.
    pub lanes_executor_tasks_per_s: Option<f64>,
    /// The pipeline with an empty async handler; each event has an ordering key.
    pub lanes_pipeline_events_per_s: Option<f64>,
    /// The same with a handler whose result is the payload, so with the rows of the pipeline.
    pub lanes_pipeline_echo_events_per_s: Option<f64>,
    /// The empty handler on the same events without keys.
    pub lanes_pipeline_keyless_events_per_s: Option<f64>,
    /// The empty handler on events with deduplication keys, 1 % of them duplicates: each is looked up.
    pub lanes_pipeline_dedup_events_per_s: Option<f64>,
    /// The pipeline with an empty async handler in parts of the pipeline.
    pub lanes_ratio_to_pipeline: Option<f64>,
    /// 10,000 tasks of 0 to 5 ms in one partition, under 1,000 keys.
    pub lanes_1000_keys_seconds: Option<f64>,
    /// Under 100 keys.
    pub lanes_100_keys_seconds: Option<f64>,
    /// Under one key.
    pub lanes_1_key_seconds: Option<f64>,
    /// The same in parts of the time measured inside the handlers: the median of the rounds' own ratios.
    pub lanes_1_key_ratio_to_handlers: Option<f64>,
    /// Requests a second that a bare route of the front door's framework reads.
    pub door_route_requests_per_s: Option<f64>,
    /// rdkafka alone, producing, right before.
    pub door_produce_events_per_s: Option<f64>,
    /// Tasks a second, one in a request.
    pub door_single_tasks_per_s: Option<f64>,
    /// Ten in a request.
    pub door_bulk10_tasks_per_s: Option<f64>,
    /// A hundred in a request.
    pub door_bulk100_tasks_per_s: Option<f64>,
    /// By gRPC streams.
    pub door_streams_tasks_per_s: Option<f64>,
    /// From submit to its answer at 1,000 tasks a second.
    pub door_submit_p50_ms: Option<f64>,
    /// From submit to its answer.
    pub door_submit_p99_ms: Option<f64>,
    /// From submit to the result of a handler that does nothing.
    pub door_result_p50_ms: Option<f64>,
    /// From submit to the result.
    pub door_result_p99_ms: Option<f64>,
    /// The front door's memory while 10,000 callers wait.
    pub door_waiters_rss_mib: Option<f64>,
}

impl Measurements {
    /// The medians.
    pub fn figures(&self) -> Figures {
        let rate = |seconds: Vec<f64>| median(seconds).map(|s| (self.events as f64 / s).round());
        let drained = |runs: &[Drained]| rate(runs.iter().map(|run| run.seconds).collect());
        let copy_rows_per_s = rate(self.copy_seconds.clone());
        let pipeline_events_per_s = drained(&self.pipeline);
        let lanes_pipeline_events_per_s = drained(&self.lanes.empty);
        let loads = |figure: fn(&DoorLoads) -> f64| self.door_loads.as_ref().map(figure);
        let results = |figure: fn(&DoorResults) -> f64| self.door_results.as_ref().map(figure);
        let peaks = self.pipeline.iter().map(|run| run.peak_rss_mib);
        Figures {
            copy_rows_per_s,
            copy2_rows_per_s: rate(self.copy2_seconds.clone()),
            drain_events_per_s: rate(self.drain_seconds.clone()),
            pipeline_events_per_s,
            pipeline_dedup_events_per_s: drained(&self.dedup),
            emit_events_per_s: rate(self.emit.iter().map(|run| run.seconds).collect()),
            produce_events_per_s: rate(self.produce_seconds.clone()),
            latency_p50_ms: self.latency.map(|seen| rounded(seen.p50_ms, 100.0)),
            latency_p99_ms: self.latency.map(|seen| rounded(seen.p99_ms, 100.0)),
            worker_peak_rss_mib: peaks.reduce(f64::max).map(|peak| rounded(peak, 10.0)),
            ratio_pipeline_to_copy: ratio(pipeline_events_per_s, copy_rows_per_s),
            lanes_core_tasks_per_s: rate(self.lanes.core_seconds.clone()),
            lanes_executor_tasks_per_s: rate(self.lanes.executor_seconds.clone()),
            lanes_pipeline_events_per_s,
            lanes_pipeline_echo_events_per_s: drained(&self.lanes.echo),
            lanes_pipeline_keyless_events_per_s: drained(&self.lanes.keyless),
            lanes_pipeline_dedup_events_per_s: drained(&self.lanes.dedup),
            lanes_ratio_to_pipeline: ratio(lanes_pipeline_events_per_s, pipeline_events_per_s),
            lanes_1000_keys_seconds: self.lanes.work_seconds(1_000),
            lanes_100_keys_seconds: self.lanes.work_seconds(100),
            lanes_1_key_seconds: self.lanes.work_seconds(1),
            lanes_1_key_ratio_to_handlers: self.lanes.ratio_to_handlers(1),
            door_route_requests_per_s: loads(|door| door.route.tasks_per_s.round()),
            door_produce_events_per_s: loads(|door| door.produce_events_per_s),
            door_single_tasks_per_s: loads(|door| door.single.tasks_per_s.round()),
            door_bulk10_tasks_per_s: loads(|door| door.bulk10.tasks_per_s.round()),
            door_bulk100_tasks_per_s: loads(|door| door.bulk100.tasks_per_s.round()),
            door_streams_tasks_per_s: loads(|door| door.streams_tasks_per_s.round()),
            door_submit_p50_ms: results(|door| rounded(door.paced.submit.p50_ms, 100.0)),
            door_submit_p99_ms: results(|door| rounded(door.paced.submit.p99_ms, 100.0)),
            door_result_p50_ms: results(|door| rounded(door.paced.result.p50_ms, 100.0)),
            door_result_p99_ms: results(|door| rounded(door.paced.result.p99_ms, 100.0)),
            door_waiters_rss_mib: results(|door| rounded(door.waited.rss_mib, 10.0)),
        }
    }
}

impl LaneRuns {
    /// The runs with so many keys.
    pub fn work_under(&self, keys: u64) -> impl Iterator<Item = &Worked> {
        self.work.iter().filter(move |worked| worked.keys == keys)
    }

    fn work_seconds(&self, keys: u64) -> Option<f64> {
        let seconds = self.work_under(keys).map(|worked| worked.run.seconds);
        median(seconds.collect()).map(|seconds| rounded(seconds, 1000.0))
    }

    fn ratio_to_handlers(&self, keys: u64) -> Option<f64> {
        let ratios = self
            .work_under(keys)
            .map(|worked| worked.run.seconds / worked.inside_seconds);
        median(ratios.collect()).map(|ratio| rounded(ratio, 1000.0))
    }
}

impl Figures {
    /// The pipeline with deduplication keys in parts of that without.
    pub fn ratio_dedup_to_pipeline(&self) -> Option<f64> {
        ratio(self.pipeline_dedup_events_per_s, self.pipeline_events_per_s)
    }

    /// `emit` in parts of the bare produce loop.
    pub fn ratio_emit_to_produce(&self) -> Option<f64> {
        ratio(self.emit_events_per_s, self.produce_events_per_s)
    }
}

fn ratio(of: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some(rounded(of? / to?, 1000.0))
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The run in the middle by its seconds.
pub fn median_run(runs: &[Drained]) -> Option<&Drained> {
    let mut sorted: Vec<&Drained> = runs.iter().collect();
    sorted.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    sorted.get(sorted.len() / 2).copied()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let high = values.get(upper)?;
    if values.len().is_multiple_of(2) {
        Some((values.get(upper - 1)? + high) / 2.0)
    } else {
        Some(*high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
    }

    #[test]
    fn a_ratio_needs_both_figures() {
        let mut measured = Measurements {
            events: 1_000,
            copy_seconds: vec![1.0],
            ..Measurements::default()
        };
        assert_eq!(measured.figures().copy_rows_per_s, Some(1_000.0));
        assert_eq!(measured.figures().ratio_emit_to_produce(), None);
        measured.produce_seconds = vec![2.0];
        measured.emit = vec![Emitted {
            seconds: 4.0,
            wall_seconds: 5.0,
            peak_rss_mib: 1.0,
        }];
        assert_eq!(measured.figures().ratio_emit_to_produce(), Some(0.5));
    }

    #[test]
    fn each_run_under_one_key_is_held_against_its_own_handlers() {
        let worked = |keys, seconds, inside_seconds| Worked {
            keys,
            inside_seconds,
            run: Drained {
                seconds,
                ..Drained::default()
            },
        };
        let measured = Measurements {
            lanes: LaneRuns {
                work: vec![
                    worked(1, 22.0, 20.0),
                    worked(1, 30.0, 30.0),
                    worked(1, 40.0, 20.0),
                    worked(100, 0.5, 30.0),
                ],
                ..LaneRuns::default()
            },
            ..Measurements::default()
        };
        let figures = measured.figures();
        assert_eq!(figures.lanes_1_key_seconds, Some(30.0));
        assert_eq!(figures.lanes_1_key_ratio_to_handlers, Some(1.1));
        assert_eq!(figures.lanes_100_keys_seconds, Some(0.5));
        assert_eq!(figures.lanes_1000_keys_seconds, None);
    }
}

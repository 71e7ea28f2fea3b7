//! Writes every series in the Prometheus text format, version 0.0.4.
//!
//! Metrics are sorted by name, series by labels, so two scrapes of the same state are the same
//! text. HELP and TYPE precede each metric, once.

use crate::buckets::BucketsSnapshot;
use crate::definition::{Kind, definitions};
use crate::{process_metrics, recorder};
use metrics::Key;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// The content type of [`render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

enum Sample {
    Counter(u64),
    Gauge(f64),
    Histogram(BucketsSnapshot),
}

/// All metrics of the process as they are now.
pub fn render() -> String {
    let mut metrics: BTreeMap<String, BTreeMap<String, Sample>> = BTreeMap::new();
    let mut add = |key: &Key, sample: Sample| {
        metrics
            .entry(valid_name(key.name()))
            .or_default()
            .insert(labels_of(key), sample);
    };
    let series = recorder::series();
    series.visit_counters(|key, count| add(key, Sample::Counter(count.load(Ordering::Relaxed))));
    series.visit_gauges(|key, bits| {
        add(
            key,
            Sample::Gauge(f64::from_bits(bits.load(Ordering::Relaxed))),
        );
    });
    series.visit_histograms(|key, buckets| add(key, Sample::Histogram(buckets.snapshot())));

    let mut text = String::with_capacity(32 * 1024);
    for (name, samples) in &metrics {
        write_metric(&mut text, name, samples);
    }
    process_metrics::render(&mut text);
    text
}

fn write_metric(text: &mut String, name: &str, samples: &BTreeMap<String, Sample>) {
    let definition = definitions().find(|d| d.name == name);
    let kind = match samples.values().next() {
        Some(Sample::Counter(_)) => "counter",
        Some(Sample::Gauge(_)) => "gauge",
        Some(Sample::Histogram(_)) => "histogram",
        None => return,
    };
    let help = definition
        .map(|d| d.help.to_owned())
        .or_else(|| recorder::help_of_foreign(name));
    write_head(
        text,
        name,
        kind,
        help.as_deref().unwrap_or("Not described."),
    );
    let in_micros = definition.is_some_and(|d| d.kind == Kind::CounterSeconds);
    for (labels, sample) in samples {
        match sample {
            Sample::Counter(micros) if in_micros => {
                write_sample(text, name, labels, &number(*micros as f64 / 1e6));
            }
            Sample::Counter(count) => write_sample(text, name, labels, &count.to_string()),
            Sample::Gauge(value) => write_sample(text, name, labels, &number(*value)),
            Sample::Histogram(snapshot) => write_histogram(text, name, labels, snapshot),
        }
    }
}

/// Writes the HELP and TYPE lines of a metric.
pub(crate) fn write_head(text: &mut String, name: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Writes one sample; `labels` is what stands between the braces, empty for none.
pub(crate) fn write_sample(text: &mut String, name: &str, labels: &str, value: &str) {
    let _ = if labels.is_empty() {
        writeln!(text, "{name} {value}")
    } else {
        writeln!(text, "{name}{{{labels}}} {value}")
    };
}

fn write_histogram(text: &mut String, name: &str, labels: &str, snapshot: &BucketsSnapshot) {
    let comma = if labels.is_empty() { "" } else { "," };
    let bucket = format!("{name}_bucket");
    for (bound, count) in &snapshot.cumulative {
        let labels = format!("{labels}{comma}le=\"{}\"", number(*bound));
        write_sample(text, &bucket, &labels, &count.to_string());
    }
    let count = snapshot.count.to_string();
    write_sample(
        text,
        &bucket,
        &format!("{labels}{comma}le=\"+Inf\""),
        &count,
    );
    write_sample(text, &format!("{name}_sum"), labels, &number(snapshot.sum));
    write_sample(text, &format!("{name}_count"), labels, &count);
}

fn labels_of(key: &Key) -> String {
    let labels: Vec<String> = key
        .labels()
        .map(|label| {
            let value = label
                .value()
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{}=\"{value}\"", valid_name(label.key()).replace(':', "_"))
        })
        .collect();
    labels.join(",")
}

fn valid_name(name: &str) -> String {
    let valid = |(at, c): (usize, char)| match c {
        'a'..='z' | 'A'..='Z' | '_' | ':' => c,
        '0'..='9' if at > 0 => c,
        _ => '_',
    };
    name.chars().enumerate().map(valid).collect()
}

/// A number as the format spells it.
pub(crate) fn number(value: f64) -> String {
    if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

//! The latency histograms of the process, and their text for a scrape.
//!
//! They stand beside the exporter, which keeps every sample until its next upkeep: at hundreds of
//! thousands of records a second that is work and memory for nothing, since the buckets are known.

use crate::definition::Definition;
use crate::latency::{LATENCY_BOUNDS, LatencyHistogram};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A series' labels as they stand in the text, without braces.
type Labels = String;

struct Family {
    help: &'static str,
    series: BTreeMap<Labels, LatencyHistogram>,
}

/// Histograms by metric name and labels.
#[derive(Default)]
pub(crate) struct LatencySeries(BTreeMap<&'static str, Family>);

impl LatencySeries {
    /// The histogram with these label values; the same one for every caller.
    pub(crate) fn histogram(
        &mut self,
        definition: &Definition,
        values: &[&str],
    ) -> LatencyHistogram {
        let family = self.0.entry(definition.name).or_insert_with(|| Family {
            help: definition.help,
            series: BTreeMap::new(),
        });
        let names = definition.labels.iter().zip(values);
        let labels: Vec<String> = names
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        family.series.entry(labels.join(",")).or_default().clone()
    }

    /// All of them in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            // Writing to a string cannot fail.
            let _ = write_family(&mut text, name, family);
        }
        text
    }
}

fn write_family(text: &mut String, name: &str, family: &Family) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {}", family.help)?;
    writeln!(text, "# TYPE {name} histogram")?;
    for (labels, histogram) in &family.series {
        let reading = histogram.read();
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, up_to) in LATENCY_BOUNDS.iter().zip(reading.up_to) {
            writeln!(
                text,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {up_to}"
            )?;
        }
        let (sum, count) = (reading.sum, reading.count);
        writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
        let braced = match labels.as_str() {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        writeln!(text, "{name}_sum{braced} {sum}")?;
        writeln!(text, "{name}_count{braced} {count}")?;
    }
    writeln!(text)
}

fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str(r"\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str(r"\n"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Kind;
    use crate::latency::LatencyBatch;

    const LABELLED: Definition = Definition {
        name: "labelled_seconds",
        kind: Kind::Latency,
        labels: &["a", "b"],
        help: "Help.",
    };
    const BARE: Definition = Definition {
        name: "bare_seconds",
        kind: Kind::Latency,
        labels: &[],
        help: "Help.",
    };

    #[test]
    fn the_same_labels_are_the_same_series() {
        let mut series = LatencySeries::default();
        let mut batch = LatencyBatch::default();
        for _ in 0..2 {
            batch.record_micros(4_000);
            series.histogram(&LABELLED, &["x", "y"]).merge(&mut batch);
        }
        series.histogram(&LABELLED, &["x", "z"]);

        let text = series.render();
        assert!(
            text.starts_with("# HELP labelled_seconds Help.\n# TYPE labelled_seconds histogram\n")
        );
        assert_eq!(text.matches("# TYPE").count(), 1);
        for line in [
            r#"labelled_seconds_bucket{a="x",b="y",le="0.003"} 0"#,
            r#"labelled_seconds_bucket{a="x",b="y",le="0.005"} 2"#,
            r#"labelled_seconds_bucket{a="x",b="y",le="1800"} 2"#,
            r#"labelled_seconds_bucket{a="x",b="y",le="+Inf"} 2"#,
            r#"labelled_seconds_sum{a="x",b="y"} 0.008"#,
            r#"labelled_seconds_count{a="x",b="y"} 2"#,
            r#"labelled_seconds_count{a="x",b="z"} 0"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn a_series_without_labels_has_no_braces() {
        let mut series = LatencySeries::default();
        series.histogram(&BARE, &[]);
        let text = series.render();
        assert!(text.contains("bare_seconds_bucket{le=\"0.001\"} 0\n"));
        assert!(text.contains("\nbare_seconds_sum 0\nbare_seconds_count 0\n"));
    }

    #[test]
    fn a_label_value_cannot_break_out_of_its_quotes() {
        let mut series = LatencySeries::default();
        series.histogram(&LABELLED, &["a\"b", "c\\d\ne"]);
        let text = series.render();
        assert!(text.contains(r#"{a="a\"b",b="c\\d\ne"}"#), "{text}");
    }
}

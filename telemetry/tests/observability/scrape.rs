//! What a scrape holds, read back from its text.

use crate::{http, sample_values};
use std::collections::{BTreeMap, BTreeSet};

/// One sample of a scrape.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Samples by sample name (`…_bucket` and the like are names of their own).
pub(crate) type Samples = BTreeMap<String, Vec<Sample>>;

/// Who is scraped: the given targets, or this process.
pub(crate) fn targets() -> Vec<String> {
    match given_targets() {
        Some(targets) => targets,
        None => vec![sample_values::listener().to_string()],
    }
}

/// The targets of `MILLRACE_SCRAPE_TARGETS`.
pub(crate) fn given_targets() -> Option<Vec<String>> {
    let list = std::env::var("MILLRACE_SCRAPE_TARGETS").ok()?;
    Some(
        list.split(',')
            .map(|target| target.trim().to_owned())
            .collect(),
    )
}

/// The text of one target's scrape.
pub(crate) fn text_of(target: &str) -> String {
    let answer = http::get(target, "/metrics").unwrap_or_else(|e| panic!("{target}: {e}"));
    assert_eq!(answer.status, 200, "{target}");
    answer.body
}

/// The samples of all targets.
pub(crate) fn of_targets() -> Samples {
    let text: String = targets().iter().map(|target| text_of(target)).collect();
    samples(&text)
}

/// Reads a text in the Prometheus format.
pub(crate) fn samples(text: &str) -> Samples {
    let mut samples = Samples::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (series, value) = line.rsplit_once(' ').expect("a value after a blank");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
            None => (series, ""),
        };
        let value = match value {
            "+Inf" => f64::INFINITY,
            value => value.parse().expect("a number"),
        };
        samples.entry(name.to_owned()).or_default().push(Sample {
            labels: labels_of(labels),
            value,
        });
    }
    samples
}

fn labels_of(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escaped character").1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        };
        labels.insert(name.to_owned(), value);
        text = rest[end + 1..].trim_start_matches(',');
    }
    labels
}

/// The label names of each sample name, those included that Prometheus adds.
pub(crate) fn label_names(samples: &Samples) -> BTreeMap<String, BTreeSet<String>> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, of_name) in samples {
        let labels = names.entry(name.clone()).or_default();
        for sample in of_name {
            labels.extend(sample.labels.keys().cloned());
        }
        labels.extend(["job".to_owned(), "instance".to_owned()]);
    }
    names.insert(
        "up".to_owned(),
        ["job", "instance"].map(str::to_owned).into(),
    );
    names
}

//! Every PromQL expression of the dashboard and of the alert rules, and what it refers to.

use crate::read;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// A query of a dashboard panel.
pub(crate) struct PanelQuery {
    /// Row and panel title.
    pub(crate) place: String,
    /// The row that the panel stands in.
    pub(crate) row: String,
    /// The expression as written, with its variables.
    pub(crate) written: String,
    /// The expression with the variables filled in, all of everything.
    pub(crate) expr: String,
    /// The legend template.
    pub(crate) legend: String,
}

/// The dashboard's JSON.
pub(crate) fn dashboard() -> serde_json::Value {
    serde_json::from_str(&read("docker/grafana/dashboards/millrace.json")).expect("valid JSON")
}

/// All panel queries, top to bottom.
pub(crate) fn of_dashboard() -> Vec<PanelQuery> {
    let dashboard = dashboard();
    let mut row = String::new();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        if panel["type"] == "row" {
            row = title.to_owned();
            continue;
        }
        for target in panel["targets"].as_array().expect("targets") {
            let written = target["expr"].as_str().expect("an expression");
            queries.push(PanelQuery {
                place: format!("{row} / {title}"),
                row: row.clone(),
                written: written.to_owned(),
                expr: filled_in(written),
                legend: target["legendFormat"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
    }
    queries
}

fn filled_in(expr: &str) -> String {
    let mut filled = expr.replace("$__rate_interval", "10s");
    for variable in ["$job", "$instance", "$group", "$topic"] {
        filled = filled.replace(variable, ".+");
    }
    assert!(
        !filled.contains('$'),
        "a variable that the dashboard does not have: {expr}"
    );
    filled
}

/// An alert rule.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct AlertRule {
    pub(crate) alert: String,
    pub(crate) expr: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct RuleFile {
    groups: Vec<RuleGroup>,
}

#[derive(serde::Deserialize)]
struct RuleGroup {
    rules: Vec<AlertRule>,
}

/// All alert rules.
pub(crate) fn of_rules() -> Vec<AlertRule> {
    let file: RuleFile =
        serde_norway::from_str(&read("docker/prometheus/rules/millrace.yml")).expect("rule file");
    file.groups
        .into_iter()
        .flat_map(|group| group.rules)
        .collect()
}

/// What an expression refers to.
#[derive(Default)]
pub(crate) struct References {
    /// Labels that are matched or grouped by, for each sample name.
    pub(crate) labels_by_name: BTreeMap<String, BTreeSet<String>>,
    /// Labels that the outermost grouping keeps; none when series keep all of theirs.
    pub(crate) kept: Option<BTreeSet<String>>,
}

/// Parses the expression and lists what it refers to.
pub(crate) fn references(expr: &str) -> References {
    let parsed = parser::parse(expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
    let mut references = References::default();
    walk_expr(&mut Selectors(&mut references), &parsed).expect("infallible");
    walk_expr(&mut Groupings(&mut references), &parsed).expect("infallible");
    references
}

struct Selectors<'a>(&'a mut References);

impl ExprVisitor for Selectors<'_> {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        if let Some(selector) = selector(expr) {
            let name = selector.name.clone().expect("a metric by name");
            let labels = self.0.labels_by_name.entry(name).or_default();
            labels.extend(selector.matchers.matchers.iter().map(|m| m.name.clone()));
        }
        Ok(true)
    }
}

struct Groupings<'a>(&'a mut References);

impl ExprVisitor for Groupings<'_> {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let Expr::Aggregate(aggregate) = expr else {
            return Ok(true);
        };
        let by: BTreeSet<String> = match &aggregate.modifier {
            Some(LabelModifier::Include(labels)) => labels.labels.iter().cloned().collect(),
            Some(LabelModifier::Exclude(_)) => panic!("`without` keeps labels nobody named"),
            None => BTreeSet::new(),
        };
        let mut beneath = References::default();
        walk_expr(&mut Selectors(&mut beneath), &aggregate.expr)?;
        for name in beneath.labels_by_name.into_keys() {
            self.0
                .labels_by_name
                .entry(name)
                .or_default()
                .extend(by.clone());
        }
        self.0.kept.get_or_insert(by);
        Ok(true)
    }
}

fn selector(expr: &Expr) -> Option<&VectorSelector> {
    match expr {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(matrix) => Some(&matrix.vs),
        _ => None,
    }
}

/// The labels that a template names between `open` and `close`.
pub(crate) fn template_labels(template: &str, open: &str, close: &str) -> BTreeSet<String> {
    template
        .split(open)
        .skip(1)
        .filter_map(|rest| rest.split(close).next())
        .map(|label| label.trim().to_owned())
        .collect()
}

//! The check that Kafka forgets before Postgres does.
//!
//! If the topic kept records longer than the results are kept, a replay could run a task whose result is
//! gone, and it would have a second one.

use std::time::Duration;

use millrace_settings::{KafkaArgs, Role};
use millrace_store::days::Retention;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::exit_code::{Refusal, WithCode};

const DEADLINE: Duration = Duration::from_secs(10);
/// Brokers for development may never answer; the embedded one does not.
const BRIEFLY: Duration = Duration::from_secs(1);
const DAY_MS: i64 = 86_400_000;

/// Refuses to start when the topic is kept longer than the results. A broker that does not tell its
/// settings, as the embedded one, is believed.
///
/// # Errors
/// With the setting's name, its value and what would be right.
pub async fn check(kafka: &KafkaArgs, retention: Retention) -> Result<(), Refusal> {
    let config = kafka
        .client_config(Role::Admin)
        .with_code(millrace_settings::exit::USAGE)?;
    let admin: AdminClient<DefaultClientContext> =
        config.create().with_code(millrace_settings::exit::USAGE)?;
    let deadline = if kafka.allow_unreplicated {
        BRIEFLY
    } else {
        DEADLINE
    };
    let options = AdminOptions::new()
        .request_timeout(Some(deadline))
        .operation_timeout(Some(deadline));
    let described = match admin
        .describe_configs(&[ResourceSpecifier::Topic(&kafka.topic)], &options)
        .await
    {
        Ok(described) => described,
        Err(error) => {
            tracing::debug!(%error, "the broker does not tell the topic's settings");
            return Ok(());
        }
    };
    let kept = described
        .iter()
        .filter_map(|one| one.as_ref().ok())
        .find_map(|one| one.get("retention.ms")?.value.as_ref()?.parse::<i64>().ok());
    let results_ms = i64::from(retention.result_days) * DAY_MS;
    match kept {
        Some(kept) if kept < 0 || kept >= results_ms => Err(Refusal::usage(format!(
            "topic {} keeps records for {}, and results are kept for {} days only: a record read again after that would get a \
             second result. Set the topic's retention.ms below {results_ms}, or raise --result-days",
            kafka.topic,
            if kept < 0 {
                "ever".to_owned()
            } else {
                format!("{:.1} days", kept as f64 / DAY_MS as f64)
            },
            retention.result_days,
        ))),
        _ => Ok(()),
    }
}

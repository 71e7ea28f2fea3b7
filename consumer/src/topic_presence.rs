//! The check that there is a topic to read, before a group is joined for it.
//!
//! The client itself would wait for ever and say nothing. A topic that the brokers do not know is a wrong
//! setting; brokers that are away are waited for later.

use std::time::Duration;

use millrace_settings::{KafkaArgs, Role, exit};
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

use crate::exit_code::{Refusal, WithCode};
use crate::source::log::{self, LogError};

const DEADLINE: Duration = Duration::from_secs(5);
/// A topic just created may be unknown to a broker for a moment.
const ANSWERS: u32 = 3;
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// Refuses to start when the brokers say that the topic does not exist.
///
/// # Errors
/// With the topic's name.
pub async fn check(kafka: &KafkaArgs) -> Result<(), Refusal> {
    let config = kafka.client_config(Role::Admin).with_code(exit::USAGE)?;
    let topic = kafka.topic.clone();
    for answer in 1.. {
        let (config, topic) = (config.clone(), topic.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let admin: AdminClient<DefaultClientContext> =
                config.create().with_code(exit::USAGE)?;
            Ok::<_, Refusal>(log::identify(admin.inner(), &topic, DEADLINE))
        });
        match asked.await.with_code(exit::REJECTED)?? {
            Err(error @ LogError::TopicMissing { .. }) if answer == ANSWERS => {
                return Err(Refusal::usage(format!(
                    "{error}; it is never created by this program: create it, or give the right --topic"
                )));
            }
            Err(LogError::TopicMissing { .. }) => tokio::time::sleep(ASK_AGAIN).await,
            Ok(_) => break,
            Err(error) => {
                tracing::warn!(%error, "the brokers do not answer: going on, the client waits for them");
                break;
            }
        }
    }
    Ok(())
}

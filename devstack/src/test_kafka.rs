//! Apache Kafka for the tests of a process, and what happens where it cannot run.
//!
//! Shared: the one named by `MILLRACE_TEST_KAFKA` (`make test` starts it), else one node for this
//! process, started by the first test that asks and ended with the process. A suite that cannot
//! run is noted by name for the end of `make test`; with `CI` set it fails instead.

use std::fs::OpenOptions;
use std::io::Write as _;

use tokio::sync::OnceCell;

use crate::{ApacheKafka, DevstackError, Java, KafkaJars, KafkaOptions};

static SHARED: OnceCell<ApacheKafka> = OnceCell::const_new();

/// Bootstrap address of the shared Apache Kafka. Tests use topics and groups of their own on it.
///
/// # Errors
/// When there is none and none can be started; see [`can_run_apache_kafka`].
pub async fn test_kafka() -> Result<String, DevstackError> {
    if let Ok(bootstrap) = std::env::var("MILLRACE_TEST_KAFKA") {
        return Ok(bootstrap);
    }
    let start = || ApacheKafka::start_temp(KafkaOptions::default());
    Ok(SHARED.get_or_try_init(start).await?.bootstrap())
}

/// True when Apache Kafka can be started here, or is given by address. When false, the suite is
/// noted as not run and its test should return.
///
/// # Errors
/// With `CI` set, what is missing is an error.
pub async fn can_run_apache_kafka(suite: &str) -> Result<bool, DevstackError> {
    let missing = match Java::find().await {
        Ok(_) => KafkaJars::resolve().await.err(),
        Err(error) => Some(error),
    };
    let Some(missing) = missing else {
        return Ok(true);
    };
    let reason = missing.to_string();
    if std::env::var_os("CI").is_some() {
        return Err(DevstackError::SuiteCannotRun {
            suite: suite.to_owned(),
            reason,
        });
    }
    eprintln!("suite `{suite}` cannot run: {reason}");
    if let Some(list) = std::env::var_os("MILLRACE_TEST_NOT_RUN") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&list)
            .map_err(DevstackError::path("write to", &list))?;
        let line = format!("{suite}: {}\n", reason.lines().next().unwrap_or_default());
        file.write_all(line.as_bytes())
            .map_err(DevstackError::path("write to", &list))?;
    }
    Ok(false)
}

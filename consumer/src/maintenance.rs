//! The upkeep of the tables while a worker runs: days ahead are made, days past retention go, and so do cancel
//! requests of tasks that are done.
//!
//! Every worker runs it; the database's own locks let one at a time do the work. A round that fails is
//! tried again soon, and says so in a metric.

use std::time::{Duration, SystemTime};

use millrace_store::days::{self, Retention};
use millrace_store::{Database, Purpose, cancels};
use millrace_telemetry::DatabaseMetrics;

const EVERY: Duration = Duration::from_secs(600);
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// Runs until it is dropped.
pub async fn run(database: Database, retention: Retention, metrics: DatabaseMetrics) {
    loop {
        let round = async {
            let mut connection = database.connect(Purpose::Operations).await?;
            cancels::sweep(&mut connection).await?;
            days::maintain(&mut connection, retention).await
        };
        let wait = match round.await {
            Ok(round) => {
                metrics.maintained(
                    SystemTime::now(),
                    round.attached.into(),
                    round.dropped.into(),
                );
                // At most one day of each table goes in a round: come back soon while there are more.
                if round.dropped > 0 {
                    AFTER_FAILURE
                } else {
                    EVERY
                }
            }
            Err(error) => {
                metrics.maintenance_failed();
                tracing::warn!(%error, "the upkeep of the daily tables failed: trying again");
                AFTER_FAILURE
            }
        };
        tokio::time::sleep(wait).await;
    }
}

#![expect(unsafe_code, reason = "librdkafka's group settings of its mock cluster have no safe API")]
//! Three settings of librdkafka's in-process cluster that the safe API does not reach.
//!
//! Without them every group there waits three seconds for its first assignment, and the KIP-848
//! protocol uses production's heartbeat of five seconds.

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext};

/// Makes groups on the client's own mock cluster quick; nothing happens if it has none.
pub(crate) fn quicken_groups<C: ClientContext>(client: &Client<C>) {
    // SAFETY: the handle is valid for as long as `client` is borrowed, and the mock cluster lives
    // inside the client; each call takes the cluster's own lock.
    unsafe {
        let cluster = bindings::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !cluster.is_null() {
            bindings::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 100);
            bindings::rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster, 100);
            bindings::rd_kafka_mock_set_group_consumer_session_timeout_ms(cluster, 3000);
        }
    }
}

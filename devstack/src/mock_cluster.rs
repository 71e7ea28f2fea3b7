#![expect(
    unsafe_code,
    reason = "the safe API reaches neither the log in time nor the group settings"
)]
//! librdkafka's in-process cluster, with a watcher that is asked before each Produce request.
//!
//! The safe wrapper of this cluster delivers log lines later and on another thread, and cannot
//! set the group timings: without them a group waits three seconds for its first assignment.
//! Here the watcher sees each line on the cluster's own thread, before the cluster goes on, and
//! its verdict decides the very request that the line announces. All unsafe code is in this file.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use rdkafka::bindings::{self, rd_kafka_mock_cluster_t, rd_kafka_t};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaApiKey, RDKafkaErrorCode, RDKafkaRespErr};

use crate::DevstackError;

/// What becomes of the request that a log line announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is handled.
    Proceed,
    /// It is answered with a retriable error, and nothing is stored.
    RefuseProduce,
}

/// Sees each debug line of the cluster. Must be quick, and must not call the cluster.
pub(crate) trait Watcher: Send + Sync {
    /// Looks at one line.
    fn line(&self, line: &str) -> Verdict;
}

/// A cluster of one broker on a free port of 127.0.0.1.
pub(crate) struct MockCluster {
    rk: *mut rd_kafka_t,
    cluster: *mut rd_kafka_mock_cluster_t,
    /// Owned; freed after `rk`, whose threads use it.
    hook: *mut Hook,
}

struct Hook {
    watcher: Box<dyn Watcher>,
    cluster: AtomicPtr<rd_kafka_mock_cluster_t>,
}

// SAFETY: librdkafka's handles may be used from any thread, each function used here takes the
// locks it needs, and the hook is only read (`Watcher` is Sync, the pointer is atomic).
unsafe impl Send for MockCluster {}
// SAFETY: as above.
unsafe impl Sync for MockCluster {}

impl MockCluster {
    pub fn start(watcher: Box<dyn Watcher>) -> Result<Self, DevstackError> {
        let hook = Box::into_raw(Box::new(Hook {
            watcher,
            cluster: AtomicPtr::new(ptr::null_mut()),
        }));
        // SAFETY: `conf` is ours until `rd_kafka_new` takes it; the hook outlives `rk` (see
        // `drop`), so the opaque pointer is valid whenever `on_log` runs.
        unsafe {
            let conf = bindings::rd_kafka_conf_new();
            for (name, value) in [(c"debug", c"mock"), (c"log_level", c"7")] {
                bindings::rd_kafka_conf_set(
                    conf,
                    name.as_ptr(),
                    value.as_ptr(),
                    ptr::null_mut(),
                    0,
                );
            }
            bindings::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            bindings::rd_kafka_conf_set_opaque(conf, hook.cast());
            let mut reason: [c_char; 256] = [0; 256];
            let rk = bindings::rd_kafka_new(
                bindings::rd_kafka_type_t::RD_KAFKA_PRODUCER,
                conf,
                reason.as_mut_ptr(),
                reason.len(),
            );
            if rk.is_null() {
                bindings::rd_kafka_conf_destroy(conf);
                drop(Box::from_raw(hook));
                let reason = CStr::from_ptr(reason.as_ptr())
                    .to_string_lossy()
                    .into_owned();
                return Err(KafkaError::ClientCreation(reason).into());
            }
            let cluster = bindings::rd_kafka_mock_cluster_new(rk, 1);
            let this = Self { rk, cluster, hook };
            if cluster.is_null() {
                return Err(KafkaError::MockCluster(RDKafkaErrorCode::Fail).into());
            }
            (*hook).cluster.store(cluster, Ordering::Release);
            bindings::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 100);
            bindings::rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster, 100);
            bindings::rd_kafka_mock_set_group_consumer_session_timeout_ms(cluster, 3000);
            Ok(this)
        }
    }

    pub fn bootstrap(&self) -> String {
        // SAFETY: the string belongs to the cluster and is copied at once.
        unsafe {
            CStr::from_ptr(bindings::rd_kafka_mock_cluster_bootstraps(self.cluster))
                .to_string_lossy()
                .into_owned()
        }
    }

    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), DevstackError> {
        let name = CString::new(name).map_err(KafkaError::from)?;
        // SAFETY: the cluster lives as long as `self`; the name is copied.
        answer(unsafe {
            bindings::rd_kafka_mock_topic_create(self.cluster, name.as_ptr(), partitions, 1)
        })
    }

    pub fn fail_next(&self, request: RDKafkaApiKey, error: RDKafkaRespErr, count: usize) {
        let errors = vec![error; count];
        // SAFETY: the cluster lives as long as `self`; the array is copied.
        unsafe {
            bindings::rd_kafka_mock_push_request_errors_array(
                self.cluster,
                request.into(),
                errors.len(),
                errors.as_ptr(),
            );
        }
    }

    pub fn fail_no_more(&self, request: RDKafkaApiKey) {
        // SAFETY: the cluster lives as long as `self`.
        unsafe { bindings::rd_kafka_mock_clear_request_errors(self.cluster, request.into()) }
    }

    pub fn set_reachable(&self, reachable: bool) -> Result<(), DevstackError> {
        const ALL: i32 = -1;
        // SAFETY: the cluster lives as long as `self`.
        answer(unsafe {
            if reachable {
                bindings::rd_kafka_mock_broker_set_up(self.cluster, ALL)
            } else {
                bindings::rd_kafka_mock_broker_set_down(self.cluster, ALL)
            }
        })
    }
}

impl Drop for MockCluster {
    fn drop(&mut self) {
        // SAFETY: in this order nothing uses what is gone: the cluster's thread ends first, then
        // librdkafka's other threads, and only then the hook that they call.
        unsafe {
            if !self.cluster.is_null() {
                bindings::rd_kafka_mock_cluster_destroy(self.cluster);
            }
            bindings::rd_kafka_destroy(self.rk);
            drop(Box::from_raw(self.hook));
        }
    }
}

fn answer(code: RDKafkaRespErr) -> Result<(), DevstackError> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(KafkaError::MockCluster(code.into()).into()),
    }
}

/// Called by librdkafka on whichever of its threads logs.
unsafe extern "C" fn on_log(
    rk: *const rd_kafka_t,
    _level: c_int,
    _facility: *const c_char,
    text: *const c_char,
) {
    if rk.is_null() || text.is_null() {
        return;
    }
    // SAFETY: librdkafka passes a live handle and a terminated string; the opaque pointer is the
    // hook, which outlives the handle. The cluster holds no lock while it logs a request.
    unsafe {
        let opaque: *mut c_void = bindings::rd_kafka_opaque(rk);
        let Some(hook) = opaque.cast::<Hook>().as_ref() else {
            return;
        };
        let Ok(line) = CStr::from_ptr(text).to_str() else {
            return;
        };
        let cluster = hook.cluster.load(Ordering::Acquire);
        if hook.watcher.line(line) == Verdict::RefuseProduce && !cluster.is_null() {
            let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
            bindings::rd_kafka_mock_push_request_errors_array(
                cluster,
                RDKafkaApiKey::Produce.into(),
                1,
                &refusal,
            );
        }
    }
}

//! Names of the Kafka record headers.
//!
//! The first three repeat fields of the event, so that bytes which do not decode still have an
//! owner; the others carry the trace context as W3C Trace Context and W3C Baggage name them.

/// The task's id as hyphenated text.
pub const TASK_ID: &str = "task_id";
/// The task's tenant.
pub const TENANT: &str = "tenant";
/// `true` or `false`: whether somebody may ask for the result.
pub const REPLY: &str = "reply";
/// W3C Trace Context, section 3.2.
pub const TRACEPARENT: &str = "traceparent";
/// W3C Trace Context, section 3.3.
pub const TRACESTATE: &str = "tracestate";
/// W3C Baggage, section 3.2.
pub const BAGGAGE: &str = "baggage";

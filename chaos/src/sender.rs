//! Sends a plan's records, in their order and at their time, and keeps which were acknowledged.
//!
//! Straight to the brokers: what happens to producers is another test. An idempotent producer with all
//! in-sync replicas, so a record that was acknowledged is in the log exactly once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::chance::Chance;
use crate::error::ChaosError;
use crate::plan::{Body, Flaw, Identity, Plan, Planned};
use crate::wire::{Wire, WireEvent};

/// The header that says which record of the plan it is.
pub const NUMBER_HEADER: &str = "chaos-n";
const ANCIENT: Duration = Duration::from_hours(24 * 90);
const PATIENCE: Duration = Duration::from_secs(90);

/// The ids of a plan's records, born now; a record that repeats another's has that.
#[must_use]
pub fn identities(plan: &Plan) -> Vec<Uuid> {
    let mut chance = Chance::new(plan.seed ^ 0x1D);
    let now = now_micros() / 1_000;
    let mut ids: Vec<Uuid> = Vec::with_capacity(plan.records.len());
    for record in &plan.records {
        let identity = record.body.event().map_or(Identity::Own, |event| event.id);
        let born = match identity {
            Identity::Ancient => now - i64::try_from(ANCIENT.as_millis()).unwrap_or_default(),
            Identity::Own | Identity::Of(_) => now,
        };
        let own = id_born(born, chance.bits(), chance.bits());
        let id = match identity {
            Identity::Of(first) => ids.get(first).copied().unwrap_or(own),
            Identity::Own | Identity::Ancient => own,
        };
        ids.push(id);
    }
    ids
}

/// Sends everything; for each record whether it was acknowledged.
///
/// # Errors
/// When a record cannot be encoded, or the client refuses to take it.
pub async fn send(
    bootstrap: &str,
    topic: &str,
    plan: &Plan,
    ids: &[Uuid],
    began: Instant,
) -> Result<Vec<bool>, ChaosError> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "2")
        .set("delivery.timeout.ms", PATIENCE.as_millis().to_string())
        .set("reconnect.backoff.max.ms", "500")
        .set("log_level", "0")
        .create()?;
    let wire = Wire::new()?;
    let mut deliveries = Vec::with_capacity(plan.records.len());
    for (index, (record, id)) in plan.records.iter().zip(ids).enumerate() {
        sleep_until(began + Duration::from_millis(record.at_ms.into())).await;
        let (key, value, tenant, with_id) = match &record.body {
            Body::Event(planned) => (
                planned.record_key(),
                wire.encode(&event(planned, *id))?,
                planned.tenant,
                true,
            ),
            Body::Garbage { key, flaw } => (
                Some(key.as_str()),
                garbage(&wire, *flaw, index),
                "acme",
                *flaw == Flaw::CutShort,
            ),
        };
        let number = index.to_string();
        let text = id.to_string();
        let mut headers = OwnedHeaders::new().insert(Header {
            key: NUMBER_HEADER,
            value: Some(&number),
        });
        if with_id {
            headers = headers
                .insert(Header {
                    key: "task_id",
                    value: Some(&text),
                })
                .insert(Header {
                    key: "tenant",
                    value: Some(tenant),
                });
        }
        let mut message = FutureRecord::to(topic).payload(&value).headers(headers);
        if let Some(key) = key {
            message = message.key(key);
        }
        let delivery = producer
            .send_result(message)
            .map_err(|(error, _)| ChaosError::Kafka(error))?;
        deliveries.push(delivery);
    }
    let mut acknowledged = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        acknowledged.push(matches!(delivery.await, Ok(Ok(_))));
    }
    Ok(acknowledged)
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

fn event(planned: &Planned, id: Uuid) -> WireEvent {
    let now = now_micros();
    WireEvent {
        id,
        task_type: planned.task_type.to_owned(),
        tenant: planned.tenant.to_owned(),
        key: planned.key.clone(),
        dedup_key: planned.dedup_key.clone(),
        submitted_at: now,
        run_at: planned.run_after_ms.map(|ms| now + i64::from(ms) * 1_000),
        deadline: planned.deadline_ms.map(|ms| now + i64::from(ms) * 1_000),
        reply: planned.reply,
        payload: planned.orders.payload(),
    }
}

fn garbage(wire: &Wire, flaw: Flaw, index: usize) -> Vec<u8> {
    let mut bytes = wire.frame();
    match flaw {
        // An id, and the length of a text that does not come.
        Flaw::CutShort => {
            bytes.extend_from_slice(&[0x77; 16]);
            bytes.push(40);
        }
        Flaw::Noise => bytes.extend(std::iter::repeat_n(0xFF, 24 + index % 7)),
    }
    bytes
}

/// A UUIDv7 (RFC 9562, section 5.7).
fn id_born(unix_ms: i64, a: u64, b: u64) -> Uuid {
    let ms = u128::from(unix_ms.unsigned_abs() & 0xFFFF_FFFF_FFFF);
    let a = u128::from(a & 0xFFF) | 0x7000;
    let b = u128::from(b >> 2) | 1 << 63;
    Uuid::from_u128(ms << 80 | a << 64 | b)
}

#[cfg(test)]
mod tests {
    use super::id_born;

    #[test]
    fn an_id_is_of_version_7_and_of_its_birth() {
        let id = id_born(1_763_710_000_123, u64::MAX, u64::MAX);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.as_u128() >> 80, 1_763_710_000_123);
    }
}

//! The headers of a copied dead letter: those of the record, and where and why it died in the words of the
//! tools that read such topics, Spring for Apache Kafka and Kafka Connect.
//!
//! Numbers are as each tool writes them: big-endian binary in Spring's headers, decimal text in Connect's.

use millrace_schemas::headers::{TASK_ID, TENANT};
use millrace_store::letters::WholeLetter;
use millrace_store::position::Consumer;

/// Header names that are ours to write: what a record brings under them tells of an earlier death.
const OURS: [&str; 3] = ["kafka_dlt-", "__connect.errors.", "millrace-"];

/// The headers of the copy, in order: the record's own first.
#[must_use]
pub fn copy_headers(consumer: &Consumer, whole: &WholeLetter) -> Vec<(String, Vec<u8>)> {
    let letter = &whole.letter;
    let (partition, offset) = (letter.place.partition, letter.place.offset);
    // Kafka's own sign for a record without a time.
    let time = letter
        .record_time
        .map_or(-1, |time| time.timestamp_millis());
    let mut headers: Vec<(String, Vec<u8>)> = whole
        .headers
        .iter()
        .filter(|(name, _)| !OURS.iter().any(|prefix| name.starts_with(prefix)))
        .cloned()
        .collect();
    let known = [
        (TASK_ID, letter.task_id.map(|id| id.to_string())),
        (TENANT, letter.tenant.clone()),
    ];
    for (name, value) in known {
        if let Some(value) = value
            && !headers.iter().any(|(there, _)| there == name)
        {
            headers.push((name.to_owned(), value.into_bytes()));
        }
    }
    let text = |text: &str| text.as_bytes().to_vec();
    let ours = [
        ("kafka_dlt-original-topic", text(&consumer.topic)),
        (
            "kafka_dlt-original-partition",
            partition.to_be_bytes().to_vec(),
        ),
        ("kafka_dlt-original-offset", offset.to_be_bytes().to_vec()),
        (
            "kafka_dlt-original-timestamp",
            i64::to_be_bytes(time).to_vec(),
        ),
        ("kafka_dlt-original-consumer-group", text(&consumer.group)),
        ("kafka_dlt-exception-fqcn", text(&letter.reason)),
        ("kafka_dlt-exception-message", text(&letter.error)),
        ("__connect.errors.topic", text(&consumer.topic)),
        ("__connect.errors.partition", text(&partition.to_string())),
        ("__connect.errors.offset", text(&offset.to_string())),
        (
            "__connect.errors.exception.class.name",
            text(&letter.reason),
        ),
        ("__connect.errors.exception.message", text(&letter.error)),
        ("millrace-reason", text(&letter.reason)),
        ("millrace-run", text(&letter.place.run.to_string())),
    ];
    headers.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    headers
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use millrace_store::letters::{Letter, LetterPlace};

    use super::*;

    fn letter(headers: &[(&str, &[u8])]) -> WholeLetter {
        WholeLetter {
            letter: Letter {
                place: LetterPlace {
                    partition: 3,
                    log_book: 1,
                    offset: 258,
                    run: 2,
                },
                task_id: None,
                tenant: Some("acme".to_owned()),
                task_type: None,
                reason: "undecodable".to_owned(),
                error: "no event".to_owned(),
                attempts: 0,
                key: None,
                record_time: DateTime::from_timestamp_millis(65_537),
                created_at: DateTime::UNIX_EPOCH,
                redriven: None,
                discarded: None,
                bytes: 1,
            },
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            value: vec![1],
        }
    }

    fn copied(whole: &WholeLetter) -> Vec<(String, Vec<u8>)> {
        let consumer = Consumer {
            group: "workers".to_owned(),
            topic: "tasks".to_owned(),
        };
        copy_headers(&consumer, whole)
    }

    #[test]
    fn numbers_are_binary_for_spring_and_text_for_connect() {
        let headers = copied(&letter(&[("trace", b"x")]));
        let expected: [(&str, &[u8]); 16] = [
            ("trace", b"x"),
            ("tenant", b"acme"),
            ("kafka_dlt-original-topic", b"tasks"),
            ("kafka_dlt-original-partition", &[0, 0, 0, 3]),
            ("kafka_dlt-original-offset", &[0, 0, 0, 0, 0, 0, 1, 2]),
            ("kafka_dlt-original-timestamp", &[0, 0, 0, 0, 0, 1, 0, 1]),
            ("kafka_dlt-original-consumer-group", b"workers"),
            ("kafka_dlt-exception-fqcn", b"undecodable"),
            ("kafka_dlt-exception-message", b"no event"),
            ("__connect.errors.topic", b"tasks"),
            ("__connect.errors.partition", b"3"),
            ("__connect.errors.offset", b"258"),
            ("__connect.errors.exception.class.name", b"undecodable"),
            ("__connect.errors.exception.message", b"no event"),
            ("millrace-reason", b"undecodable"),
            ("millrace-run", b"2"),
        ];
        let expected: Vec<(String, Vec<u8>)> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
            .collect();
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_an_earlier_death_left_is_replaced_and_the_rest_stays_as_it_was() {
        let headers = copied(&letter(&[
            ("tenant", b"other"),
            ("kafka_dlt-original-topic", b"older"),
            ("a", &[0xff]),
            ("a", b""),
        ]));
        let of = |name: &str| {
            let values = headers.iter().filter(|(there, _)| there == name);
            values.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("kafka_dlt-original-topic"), [b"tasks".to_vec()]);
        assert_eq!(of("tenant"), [b"other".to_vec()]);
        assert_eq!(of("a"), [vec![0xff], vec![]]);
    }
}

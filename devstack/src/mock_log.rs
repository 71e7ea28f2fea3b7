//! What librdkafka's in-process cluster says about itself, read from its debug log.
//!
//! The lines come from the cluster's own thread, before it goes on, and are the only place that
//! tells the stored (compressed) size of a batch. Their wording belongs to the librdkafka version
//! that the workspace pins; the tests of the embedded broker fail when it changes.

/// One thing that happened in the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MockEvent<'a> {
    /// A Produce request came in and is handled next.
    ProduceReceived {
        /// The connection, as `address:port`.
        peer: &'a str,
    },
    /// A batch was stored; older ones may have been dropped for it.
    Appended {
        topic: &'a str,
        partition: i32,
        /// Stored bytes of the batch.
        bytes: u64,
        /// First offset that the partition still holds.
        start: i64,
        /// Offset behind the batch.
        end: i64,
    },
    /// A group committed.
    Committed {
        topic: &'a str,
        partition: i32,
        /// The next offset that the group will read.
        offset: i64,
        group: &'a str,
    },
}

impl<'a> MockEvent<'a> {
    /// Understands a log line; `None` for all that does not matter here.
    pub fn parse(line: &'a str) -> Option<Self> {
        if let Some((_, rest)) = line.split_once(": Received ProduceRequestV") {
            let (_, peer) = rest.split_once(" from ")?;
            return Some(Self::ProduceReceived { peer });
        }
        if let Some((_, rest)) = line.split_once(": Log append ") {
            let (topic, partition, rest) = topic_partition(rest)?;
            let (_, rest) = rest.split_once(" messages, ")?;
            let (bytes, rest) = rest.split_once(" bytes at offset ")?;
            let (_, rest) = rest.split_once("(log now ")?;
            let (start, rest) = rest.split_once("..")?;
            let (end, _) = rest.split_once(',')?;
            return Some(Self::Appended {
                topic,
                partition,
                bytes: bytes.parse().ok()?,
                start: start.parse().ok()?,
                end: end.parse().ok()?,
            });
        }
        let (head, rest) = line.split_once(" committing offset ")?;
        let (_, place) = head.split_once("Topic ")?;
        let (topic, partition, _) = topic_partition(place)?;
        let (offset, group) = rest.split_once(" for group ")?;
        Some(Self::Committed {
            topic,
            partition,
            offset: offset.parse().ok()?,
            group,
        })
    }
}

/// `tasks [3] …`
fn topic_partition(text: &str) -> Option<(&str, i32, &str)> {
    let (topic, rest) = text.split_once(" [")?;
    let (partition, rest) = rest.split_once(']')?;
    Some((topic, partition.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_matter_are_understood() {
        assert_eq!(
            MockEvent::parse(
                "[thrd:mock]: Broker 1: Log append tasks [3] 80 messages, 81000 bytes at offset \
                 120 (log now 40..200, original start 0)"
            ),
            Some(MockEvent::Appended {
                topic: "tasks",
                partition: 3,
                bytes: 81_000,
                start: 40,
                end: 200
            })
        );
        assert_eq!(
            MockEvent::parse("Topic tasks.dlq [0] committing offset 77 for group my workers"),
            Some(MockEvent::Committed {
                topic: "tasks.dlq",
                partition: 0,
                offset: 77,
                group: "my workers"
            })
        );
        assert_eq!(
            MockEvent::parse("Broker 1: Received ProduceRequestV10 from 127.0.0.1:41000"),
            Some(MockEvent::ProduceReceived {
                peer: "127.0.0.1:41000"
            })
        );
        for other in [
            "Broker 1: Received FetchRequestV16 from 127.0.0.1:1",
            "",
            "Topic tasks [",
        ] {
            assert_eq!(MockEvent::parse(other), None);
        }
    }
}

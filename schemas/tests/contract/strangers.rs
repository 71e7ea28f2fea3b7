//! Bytes from a stranger: whatever they are, the answer is an event within the limits or an error
//! that says what was wrong, never a panic.

use millrace_schemas::{
    CURRENT_FINGERPRINT, DecodeError, Decoders, Framing, TaskEvent, encode, limits,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::events::{event, full_event, single_object};
use crate::evolution::{OLDER, written_as_older};

const CONFLUENT: Framing = Framing::Confluent { schema_id: 7 };

struct Reader {
    decoders: Decoders,
    older: u64,
}

impl Reader {
    fn new() -> Self {
        let mut decoders = Decoders::new().with_confluent_id(7);
        let older = decoders.learn(OLDER).unwrap();
        Self { decoders, older }
    }

    /// The event in both framings of the current schema and under an older one.
    fn frames(&self, event: &TaskEvent) -> [Vec<u8>; 3] {
        let encoded = |framing| {
            let mut bytes = Vec::new();
            encode(&event.as_ref(), framing, &mut bytes);
            bytes
        };
        let older = single_object(self.older, &written_as_older(event));
        [encoded(Framing::SingleObject), encoded(CONFLUENT), older]
    }

    /// Decodes, and holds an event that comes out to the limits.
    fn judge(&self, bytes: &[u8]) -> Result<TaskEvent, DecodeError> {
        let event = self.decoders.decode(bytes)?.into_owned();
        limits::check(&event.as_ref()).unwrap();
        Ok(event)
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Set(at, value) => *at.get_mut(bytes) = *value,
            Self::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << (bit & 7),
            Self::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + count));
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<Index>(), vec(any::<u8>(), 1..12)).prop_map(|(at, more)| Change::Insert(at, more)),
        (any::<Index>(), 1_usize..12).prop_map(|(at, count)| Change::Remove(at, count)),
        any::<Index>().prop_map(Change::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn random_bytes_are_judged_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let reader = Reader::new();
        let _ = reader.judge(&bytes);
        for fingerprint in [CURRENT_FINGERPRINT, reader.older] {
            let _ = reader.judge(&single_object(fingerprint, &bytes));
        }
        let _ = reader.judge(&[&[0, 0, 0, 0, 7], bytes.as_slice()].concat());
    }

    #[test]
    fn damaged_events_are_judged_without_a_panic(
        event in event(), changes in vec(change(), 1..6), near_the_front in any::<bool>(),
    ) {
        let reader = Reader::new();
        // Most bytes of an event are payload, where damage goes unseen.
        let event = if near_the_front { TaskEvent { payload: vec![], ..event } } else { event };
        for mut bytes in reader.frames(&event) {
            for change in &changes {
                change.apply(&mut bytes);
            }
            let _ = reader.judge(&bytes);
        }
    }

    #[test]
    fn an_event_that_is_cut_short_anywhere_is_refused(event in event(), at in any::<Index>()) {
        let reader = Reader::new();
        for bytes in reader.frames(&event) {
            let cut = at.index(bytes.len());
            let error = reader.judge(&bytes[..cut]).unwrap_err();
            prop_assert_eq!(error.unknown_schema(), None);
        }
    }

    #[test]
    fn bytes_left_over_are_counted(event in event(), more in vec(any::<u8>(), 1..20)) {
        let reader = Reader::new();
        for bytes in reader.frames(&event) {
            let longer = [bytes, more.clone()].concat();
            let expected = DecodeError::TrailingBytes { count: more.len() };
            prop_assert_eq!(reader.judge(&longer), Err(expected));
        }
    }
}

#[test]
fn every_prefix_of_an_event_is_refused() {
    let reader = Reader::new();
    for bytes in reader.frames(&full_event()) {
        for cut in 0..bytes.len() {
            assert!(
                reader.judge(&bytes[..cut]).is_err(),
                "{cut} of {} bytes",
                bytes.len()
            );
        }
    }
}

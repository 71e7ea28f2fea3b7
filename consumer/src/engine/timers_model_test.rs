//! The timers against a list of every timer that is set.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::timers::{TimerKind, Timers};

const KINDS: [TimerKind; 5] = [
    TimerKind::Retry,
    TimerKind::Deadline,
    TimerKind::Timeout,
    TimerKind::Grace,
    TimerKind::RunLong,
];

#[derive(Clone, Copy, Debug)]
enum Step {
    Set {
        at_ms: u64,
        id: u64,
        kind: TimerKind,
    },
    Cancel {
        id: u64,
    },
    CancelKind {
        id: u64,
        kind: TimerKind,
    },
    Pass {
        ms: u64,
        take: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0..40_u64;
    let kind = prop::sample::select(KINDS.to_vec());
    let step = prop_oneof![
        8 => (0..1_000_u64, id.clone(), kind.clone())
            .prop_map(|(at_ms, id, kind)| Step::Set { at_ms, id, kind }),
        4 => id.clone().prop_map(|id| Step::Cancel { id }),
        1 => (id, kind).prop_map(|(id, kind)| Step::CancelKind { id, kind }),
        1 => (0..30_u64, 0..20_usize).prop_map(|(ms, take)| Step::Pass { ms, take }),
    ];
    prop::collection::vec(step, 0..600)
}

/// Every timer that is set, in the order in which they were.
#[derive(Default)]
struct Model(Vec<(u64, u64, TimerKind)>);

impl Model {
    fn set(&mut self, at_ms: u64, id: u64, kind: TimerKind) {
        self.cancel(|other, other_kind| (other, other_kind) == (id, kind));
        self.0.push((at_ms, id, kind));
    }

    fn cancel(&mut self, of: impl Fn(u64, TimerKind) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, id, kind)| !of(*id, *kind));
        self.0.len() < before
    }

    fn next_at(&self) -> Option<u64> {
        self.0.iter().map(|(at, ..)| *at).min()
    }

    fn due(&mut self, now_ms: u64) -> Option<(u64, TimerKind)> {
        let next = self.next_at().filter(|at| *at <= now_ms)?;
        let at = self.0.iter().position(|(at, ..)| *at == next)?;
        let (_, id, kind) = self.0.remove(at);
        Some((id, kind))
    }
}

proptest! {
    #[test]
    fn timers_agree_with_a_list_of_all_of_them(steps in steps()) {
        let start = Instant::now();
        let instant = |ms| start + Duration::from_millis(ms);
        let (mut timers, mut model, mut now) = (Timers::new(), Model::default(), 0);
        for step in steps {
            match step {
                Step::Set { at_ms, id, kind } => {
                    timers.set(instant(at_ms), id, kind);
                    model.set(at_ms, id, kind);
                }
                Step::Cancel { id } => {
                    prop_assert_eq!(timers.cancel(id), model.cancel(|other, _| other == id));
                }
                Step::CancelKind { id, kind } => prop_assert_eq!(
                    timers.cancel_kind(id, kind),
                    model.cancel(|other, other_kind| (other, other_kind) == (id, kind))
                ),
                Step::Pass { ms, take } => {
                    now += ms;
                    for _ in 0..take {
                        prop_assert_eq!(timers.due(instant(now)), model.due(now));
                    }
                }
            }
            prop_assert_eq!(timers.next_at(), model.next_at().map(instant));
            prop_assert_eq!(timers.len(), model.0.len());
            prop_assert_eq!(timers.is_empty(), model.0.is_empty());
            prop_assert!(timers.held() <= 2 * timers.len() + 64);
        }
    }
}

#[test]
fn a_million_cancelled_timers_leave_nothing_behind() {
    let mut timers = Timers::new();
    let later = Instant::now() + Duration::from_secs(10);
    for id in 0..1_000_000_u64 {
        timers.set(later, id, TimerKind::RunLong);
        assert!(timers.cancel(id));
        assert!(timers.held() <= 64);
    }
    assert!(timers.is_empty());
    assert_eq!(timers.next_at(), None);
}

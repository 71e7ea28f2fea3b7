//! The lanes over generated histories: tasks fail, wait, are parked, trimmed, cancelled and fetched back, answers
//! come late, and workers leave or crash at any moment. The model asserts the rules at every step.

use std::time::Instant;

use proptest::prelude::*;

use super::lanes_model::{Plan, Waits, World, in_log};
use super::lanes_model_attempts::How;
use super::lanes_model_owner::Owner;

#[derive(Clone, Copy, Debug)]
enum Step {
    Read,
    LookUp,
    Start { pick: usize, put_off: bool },
    Finish { pick: usize, how: How },
    ParkRunning { pick: usize },
    Flush { most: usize },
    AskForParked { most: usize },
    Tick { by: u64 },
    Trim { depth: usize },
    Cancel { offset: i64 },
    Leave,
    NextOwner,
}

fn waits() -> impl Strategy<Value = Waits> {
    prop_oneof![
        12 => (0..2_u8).prop_map(Waits::Key),
        1 => Just(Waits::Nobody),
        2 => Just(Waits::Partition),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let run_at = prop_oneof![6 => Just(0_u64), 1 => 1..20_u64];
    let rarely = || prop::bool::weighted(0.08);
    (waits(), run_at, rarely(), rarely()).prop_map(|(waits, run_at, repeats, unstorable)| Plan {
        waits,
        run_at,
        repeats,
        unstorable,
    })
}

/// A task that was parked before and waits with its key.
fn old() -> impl Strategy<Value = Plan> {
    (0..2_u8).prop_map(|key| Plan {
        waits: Waits::Key(key),
        run_at: 0,
        repeats: false,
        unstorable: false,
    })
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        3 => Just(How::Ends),
        1 => (0..4_u64).prop_map(How::WaitsHere),
        2 => (0..8_u64).prop_map(How::Parks),
    ]
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let pick = || 0..100_usize;
    let step = prop_oneof![
        10 => Just(Step::Read),
        8 => Just(Step::LookUp),
        8 => (pick(), prop::bool::weighted(0.1))
            .prop_map(|(pick, put_off)| Step::Start { pick, put_off }),
        8 => (pick(), how()).prop_map(|(pick, how)| Step::Finish { pick, how }),
        2 => pick().prop_map(|pick| Step::ParkRunning { pick }),
        12 => (1..6_usize).prop_map(|most| Step::Flush { most }),
        12 => (1..4_usize).prop_map(|most| Step::AskForParked { most }),
        4 => (1..4_u64).prop_map(|by| Step::Tick { by }),
        2 => (1..3_usize).prop_map(|depth| Step::Trim { depth }),
        1 => (0..40_i64).prop_map(|offset| Step::Cancel { offset }),
        1 => Just(Step::Leave),
        1 => Just(Step::NextOwner),
    ];
    prop::collection::vec(step, 0..most)
}

fn take_step(owner: &mut Owner, world: &mut World, step: Step, began: Instant) {
    match step {
        Step::Read => owner.read(world),
        Step::LookUp => owner.look_up(world),
        Step::Start { pick, put_off } => owner.start(world, pick, put_off),
        Step::Finish { pick, how } => owner.finish(world, pick, how),
        Step::ParkRunning { pick } => owner.park_running(pick),
        Step::Flush { most } => owner.flush(world, most),
        Step::AskForParked { most } => owner.ask_for_parked(world, most),
        Step::Tick { by } => {
            world.now += by;
            owner.wake_retries(world);
        }
        Step::Trim { depth } => owner.trim(depth),
        Step::Cancel { offset } if offset < world.log_end => {
            owner.cancel(in_log(offset), world);
        }
        Step::Cancel { .. } => {}
        Step::Leave => owner.begin_leaving(),
        Step::NextOwner => *owner = Owner::claim(world, began),
    }
    owner.check(world);
}

/// Everything is let go on, and nothing fails any more.
fn let_go_on(owner: &mut Owner, world: &mut World, began: Instant) {
    for round in 0..2_000 {
        if world.ended.len() == world.plans.len() {
            return;
        }
        if owner.is_leaving && owner.is_idle() {
            *owner = Owner::claim(world, began);
        }
        for step in [
            Step::Read,
            Step::LookUp,
            Step::Start {
                pick: round,
                put_off: false,
            },
            Step::Finish {
                pick: round,
                how: How::Ends,
            },
            Step::Flush { most: 5 },
            Step::AskForParked { most: 2 },
            Step::Tick { by: 1 },
        ] {
            take_step(owner, world, step, began);
        }
    }
    let left: Vec<_> = world
        .plans
        .keys()
        .filter(|spot| !world.ended.contains(spot))
        .collect();
    assert!(left.is_empty(), "{left:?} never end: {owner:?} {world:?}");
}

proptest! {
    #[test]
    fn tasks_of_a_key_start_in_order_and_every_task_ends(
        old in prop::collection::vec(old(), 0..5),
        log in prop::collection::vec(plan(), 1..40),
        steps in steps(400),
    ) {
        let began = Instant::now();
        let mut world = World::new(&old, &log);
        let mut owner = Owner::claim(&mut world, began);
        for step in steps {
            take_step(&mut owner, &mut world, step, began);
        }
        let_go_on(&mut owner, &mut world, began);
        let_rest_be_written(&mut owner, &mut world);
        prop_assert!(world.rows.is_empty());
    }
}

fn let_rest_be_written(owner: &mut Owner, world: &mut World) {
    for _ in 0..1_000 {
        owner.flush(world, 10);
        owner.check(world);
    }
}

//! Careful mode over generated histories: killers hide among innocent tasks, and workers are killed and released
//! at any moment.

#![expect(clippy::panic, reason = "a history without an end has failed")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::Spot;
use super::careful::{AloneEnd, Careful, Permit, SUSPECT_PATIENCE};
use super::careful_model::{Database, Dice, End, Exit, Tally, Task, Worker};

fn task() -> impl Strategy<Value = Task> {
    let fails = prop_oneof![4 => Just(0_u8), 1 => 1..6_u8];
    (prop::bool::weighted(0.02), prop::bool::weighted(0.1), fails).prop_map(
        |(kills, runs_long, fails)| Task {
            kills,
            runs_long,
            fails,
        },
    )
}

/// Runs workers one after another until every task has ended.
fn live_on(
    tasks: &[Task],
    seed: u64,
    kill_one_in: Option<usize>,
    release_one_in: Option<usize>,
) -> (Database, Tally) {
    let (mut database, mut tally) = (Database::default(), Tally::default());
    let (mut dice, now) = (Dice(seed), Instant::now());
    for _ in 0..10_000 {
        let worker = Worker::claim(tasks, &mut database, &mut tally, &mut dice, now);
        if worker.run(kill_one_in, release_one_in) == Exit::AllDone {
            return (database, tally);
        }
    }
    panic!("no end of it: {tally:?} {database:?}");
}

proptest! {
    /// The model asserts the bounds at every crash, and that no innocent task is set aside as it happens.
    #[test]
    fn killers_are_set_aside_within_the_bounds_and_nobody_else(
        tasks in prop::collection::vec(task(), 1..300),
        seed in any::<u64>(),
        kill_one_in in prop::option::of(100..2_000_usize),
        release_one_in in prop::option::of(200..2_000_usize),
    ) {
        let (database, tally) = live_on(&tasks, seed, kill_one_in, release_one_in);
        for (at, task) in tasks.iter().enumerate() {
            let expected = if task.kills { End::SetAside } else { End::Result };
            let killed = tally.kills_when_noted.get(&at).copied().unwrap_or(0);
            let end = database.ended.get(&at).copied();
            prop_assert!(end == Some(expected) || killed >= 3, "{} ended as {:?}", at, end);
        }
    }
}

#[test]
fn a_single_prompt_killer_costs_five_crashes_and_nothing_else() {
    let killer = Task {
        kills: true,
        runs_long: false,
        fails: 0,
    };
    let (database, tally) = live_on(&[killer], 7, None, None);
    assert_eq!(database.ended.get(&0), Some(&End::SetAside));
    assert_eq!(
        tally.crashes, 5,
        "two unclean ends, then three starts on its own"
    );
}

#[test]
fn sixty_tasks_after_a_killer_see_careful_mode_left_again() {
    let innocent = Task {
        kills: false,
        runs_long: false,
        fails: 0,
    };
    let mut tasks = vec![innocent; 61];
    if let Some(first) = tasks.first_mut() {
        first.kills = true;
    }
    let (_, tally) = live_on(&tasks, 11, None, None);
    assert_eq!(tally.left_by_ends, 1);
}

fn at(offset: i64) -> Spot {
    Spot {
        log_book: 0,
        offset,
    }
}

#[test]
fn a_first_claim_and_two_more_are_normal_and_the_next_is_careful() {
    assert!(!Careful::at_claim(1, None).is_careful());
    assert!(!Careful::at_claim(2, None).is_careful());
    assert!(Careful::at_claim(3, None).is_careful());
    assert!(Careful::at_claim(1, Some((0, 5, 1))).is_careful());
}

#[test]
fn a_parked_task_that_was_loaded_three_times_runs_alone_in_any_mode() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(1, None);
    assert_eq!(careful.may_start(at(1), 2, now), Permit::Freely);
    assert_eq!(careful.may_start(at(2), 3, now), Permit::Alone);
    assert_eq!(careful.alone(), Some(at(2)));
    assert_eq!(careful.may_start(at(3), 0, now), Permit::NotYet);
    assert_eq!(careful.starts(), 1);
    assert!(!careful.ended(at(2), AloneEnd::Durable), "no mode to leave");
    assert!(careful.to_clear());
    assert_eq!(
        careful.may_start(at(3), 0, now),
        Permit::NotYet,
        "its crash would count for another"
    );
    careful.cleared();
    assert_eq!(careful.may_start(at(3), 0, now), Permit::Freely);
}

#[test]
fn the_suspect_goes_first_but_is_not_waited_for_for_ever() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(1, Some((0, 5, 2)));
    assert_eq!(careful.may_start(at(4), 0, now), Permit::NotYet);
    assert!(
        !careful.nothing_pending(now),
        "the suspect has still to come"
    );
    let soon = now + SUSPECT_PATIENCE - Duration::from_millis(1);
    assert_eq!(careful.may_start(at(4), 0, soon), Permit::NotYet);
    let late = now + SUSPECT_PATIENCE;
    assert_eq!(careful.may_start(at(4), 0, late), Permit::Alone);
    assert_eq!(careful.may_start(at(5), 0, late), Permit::NotYet);
}

#[test]
fn a_suspect_that_has_ended_is_waited_for_by_nobody() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(1, Some((0, 5, 3)));
    assert!(!careful.gone(at(4)));
    assert_eq!(careful.may_start(at(4), 0, now), Permit::NotYet);
    assert!(careful.gone(at(5)));
    assert_eq!(careful.may_start(at(4), 0, now), Permit::Alone);
}

#[test]
fn a_suspect_of_three_starts_is_set_aside_and_the_next_one_starts_from_one() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(1, Some((0, 5, 3)));
    assert_eq!(careful.may_start(at(5), 0, now), Permit::SetAside);
    assert!(!careful.ended(at(5), AloneEnd::Durable));
    assert_eq!(careful.may_start(at(6), 0, now), Permit::Alone);
    assert_eq!(careful.starts(), 1);
}

#[test]
fn attempts_that_fail_are_not_counted_as_starts_that_never_ended() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(1, Some((0, 5, 2)));
    for _ in 0..10 {
        assert_eq!(careful.may_start(at(5), 0, now), Permit::Alone);
        assert_eq!(careful.starts(), 3);
        assert!(!careful.ended(at(5), AloneEnd::Waits));
        assert!(careful.to_clear(), "this start killed nobody");
        assert_eq!(careful.may_start(at(5), 0, now), Permit::NotYet);
        careful.cleared();
    }
    assert_eq!(careful.suspect(), Some((at(5), 2)), "what a release leaves");
    let soon = now + SUSPECT_PATIENCE - Duration::from_millis(1);
    assert_eq!(
        careful.may_start(at(6), 0, soon),
        Permit::NotYet,
        "it comes again, and goes first"
    );
}

#[test]
fn a_task_that_did_not_start_after_all_leaves_the_turn_to_the_suspect() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(1, Some((0, 5, 1)));
    assert_eq!(careful.may_start(at(5), 0, now), Permit::Alone);
    assert!(!careful.ended(at(5), AloneEnd::NotStarted));
    assert_eq!(careful.alone(), None);
    careful.cleared();
    assert_eq!(careful.may_start(at(6), 0, now), Permit::NotYet);
    assert_eq!(careful.may_start(at(5), 0, now), Permit::Alone);
}

#[test]
fn attempts_that_wait_in_memory_do_not_end_careful_mode() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(3, None);
    for round in 0..1_000 {
        assert_eq!(careful.may_start(at(round), 0, now), Permit::Alone);
        assert!(!careful.ended(at(round), AloneEnd::Waits));
        careful.cleared();
    }
    for round in 0..29 {
        assert_eq!(careful.may_start(at(round), 0, now), Permit::Alone);
        assert!(!careful.ended(at(round), AloneEnd::Durable));
    }
    careful.frontier_moved();
    assert_eq!(careful.may_start(at(29), 0, now), Permit::Alone);
    assert!(
        !careful.ended(at(7), AloneEnd::Durable),
        "somebody else's end"
    );
    assert!(!careful.to_clear(), "the next note replaces it");
    assert!(careful.ended(at(29), AloneEnd::Durable));
    assert!(careful.to_clear());
    careful.cleared();
    assert_eq!(careful.may_start(at(30), 0, now), Permit::Freely);
}

#[test]
fn however_many_tasks_end_the_mode_stays_on_until_the_frontier_moves() {
    let now = Instant::now();
    let mut careful = Careful::at_claim(3, None);
    for end in 1..100 {
        assert_eq!(careful.may_start(at(end), 0, now), Permit::Alone);
        assert!(!careful.ended(at(end), AloneEnd::Durable));
    }
    careful.frontier_moved();
    assert_eq!(careful.may_start(at(0), 0, now), Permit::Alone);
    assert!(careful.ended(at(0), AloneEnd::Durable));
}

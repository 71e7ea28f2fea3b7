//! What a retry policy promises, for any policy that is valid and any history of failures.

use std::time::Duration;

use proptest::prelude::*;

use super::retry::{LONGEST_WAIT, Mode, Policy, Verdict, Why};

fn policies() -> impl Strategy<Value = Policy> {
    (
        1..40_u16,
        1..200_000_u64,
        1..5_000_u64,
        1..5_000_000_u64,
        0..10_000_u64,
    )
        .prop_map(|(max_attempts, max_age, base, more, park_after)| Policy {
            max_attempts,
            max_age: Duration::from_millis(max_age),
            backoff_base: Duration::from_millis(base),
            backoff_cap: Duration::from_millis(base + more),
            park_after: Duration::from_millis(park_after),
            ..Policy::default()
        })
}

/// The exponential backoff, step by step.
fn exponential(policy: &Policy, attempts: u16) -> Duration {
    (1..attempts)
        .fold(policy.backoff_base, |delay, _| {
            (delay * 2).min(policy.backoff_cap)
        })
        .min(policy.backoff_cap)
}

proptest! {
    #[test]
    fn a_backoff_lies_between_nothing_and_the_capped_exponential(
        policy in policies(), attempts in 1..40_u16, chance in 0.0..=1.0_f64
    ) {
        prop_assert!(policy.validate().is_ok());
        let verdict = policy.after_failure(attempts, Duration::ZERO, None, chance);
        if attempts >= policy.max_attempts {
            prop_assert_eq!(verdict, Verdict::Exhausted(Why::Attempts));
        } else {
            let most = exponential(&policy, attempts);
            let Verdict::Wait(wait) = verdict else { return Err(TestCaseError::fail("given up")) };
            prop_assert!(wait <= most && most <= policy.backoff_cap);
            let off = wait.as_secs_f64() - most.as_secs_f64() * chance;
            prop_assert!(off.abs() < 1e-6, "the chance picks evenly from the whole range");
        }
    }

    #[test]
    fn jitter_reaches_both_ends_of_the_range(policy in policies(), attempts in 1..40_u16) {
        let policy = Policy { max_attempts: 40, ..policy };
        let after = |chance| policy.after_failure(attempts, Duration::ZERO, None, chance);
        prop_assert_eq!(after(0.0), Verdict::Wait(Duration::ZERO));
        prop_assert_eq!(after(1.0), Verdict::Wait(exponential(&policy, attempts)));
    }

    #[test]
    fn a_delay_that_was_asked_for_is_kept_up_to_thirty_days(
        policy in policies(), asked_ms in 0..10_000_000_000_u64, chance in 0.0..=1.0_f64
    ) {
        let policy = Policy { max_attempts: 2, ..policy };
        let asked = Duration::from_millis(asked_ms);
        let verdict = policy.after_failure(1, Duration::ZERO, Some(asked), chance);
        prop_assert_eq!(verdict, Verdict::Wait(asked.min(LONGEST_WAIT)));
    }

    #[test]
    fn every_history_of_failures_ends_within_the_attempts_and_only_at_a_failure(
        policy in policies(),
        runs_ms in prop::collection::vec(0..60_000_u64, 40),
        asked in prop::collection::vec(prop::option::weighted(0.2, 0..1_000_000_u64), 40),
        chance in 0.0..=1.0_f64,
    ) {
        let mut age = Duration::ZERO;
        let mut attempts = 0;
        for (run, asked) in runs_ms.into_iter().zip(asked) {
            attempts += 1;
            age += Duration::from_millis(run);
            match policy.after_failure(attempts, age, asked.map(Duration::from_millis), chance) {
                Verdict::Wait(wait) => {
                    prop_assert!(age < policy.max_age, "it was young when its attempt failed");
                    age += wait;
                }
                Verdict::Exhausted(Why::Attempts) => break,
                Verdict::Exhausted(Why::Age) => {
                    prop_assert!(age >= policy.max_age);
                    break;
                }
            }
        }
        prop_assert!(attempts <= policy.max_attempts);
    }

    #[test]
    fn no_number_whatever_makes_a_verdict_fail(
        base in any::<u64>(), cap in any::<u64>(), attempts in any::<u16>(), age in any::<u64>(),
        asked in prop::option::of(any::<u64>()), chance in any::<f64>()
    ) {
        let policy = Policy {
            max_attempts: u16::MAX,
            backoff_base: Duration::from_secs(base),
            backoff_cap: Duration::from_secs(cap),
            ..Policy::default()
        };
        let verdict = policy.after_failure(
            attempts, Duration::from_secs(age), asked.map(Duration::from_secs), chance,
        );
        if let Verdict::Wait(wait) = verdict {
            prop_assert!(wait <= LONGEST_WAIT);
        }
    }
}

#[test]
fn an_age_limit_that_passed_during_a_wait_leaves_one_more_attempt() {
    let policy = Policy::default();
    let a_day_and_more = Duration::from_secs(25 * 60 * 60);
    let verdict = policy.after_failure(1, Duration::from_secs(1), Some(a_day_and_more), 0.5);
    assert_eq!(verdict, Verdict::Wait(a_day_and_more));
    let older = a_day_and_more + Duration::from_secs(2);
    assert_eq!(
        policy.after_failure(2, older, None, 0.5),
        Verdict::Exhausted(Why::Age)
    );
}

#[test]
fn only_waits_above_the_limit_are_parked_and_none_where_the_whole_partition_waits() {
    let by_key = Policy::default();
    assert!(!by_key.parks(Duration::from_secs(5)));
    assert!(by_key.parks(Duration::from_millis(5_001)));
    let by_partition = Policy {
        mode: Mode::Partition,
        ..Policy::default()
    };
    assert!(!by_partition.parks(LONGEST_WAIT));
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(Policy::default().validate(), Ok(()));
}

#[test]
fn a_refusal_names_the_field_the_value_and_what_is_right() {
    let refusal = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.validate().err().map(|error| error.to_string())
    };
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(
        refusal(|p| p.max_attempts = 0),
        said("max_attempts is 0; it must be from 1 to 32767")
    );
    assert_eq!(
        refusal(|p| p.max_attempts = 32_768),
        said("max_attempts is 32768; it must be from 1 to 32767")
    );
    assert_eq!(
        refusal(|p| p.max_age = Duration::ZERO),
        said("max_age is 0s; it must be from 1ms to 365 days")
    );
    assert_eq!(
        refusal(|p| p.backoff_base = Duration::ZERO),
        said("backoff_base is 0s; it must be from 1ms to 30 days")
    );
    assert_eq!(
        refusal(|p| p.backoff_cap = Duration::from_millis(999)),
        said("backoff_cap is 999ms; it must be from backoff_base to 30 days")
    );
    assert_eq!(
        refusal(|p| p.timeout = Some(Duration::ZERO)),
        said("timeout is 0s; it must be from 1ms to 365 days")
    );
    assert_eq!(
        refusal(|p| p.grace = Duration::from_secs(3_601)),
        said("grace is 1h 1s; it must be at most 1h")
    );
    assert_eq!(
        refusal(|p| p.max_in_flight = Some(0)),
        said("max_in_flight is 0; it must be at least 1")
    );
    assert_eq!(
        refusal(|p| p.park_after = Duration::from_secs(3_601)),
        said("park_after is 1h 1s; it must be at most 1h")
    );
    assert_eq!(
        refusal(|p| p.run_long_after = Duration::ZERO),
        said("run_long_after is 0s; it must be from 1ms to 1h")
    );
}

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;

use super::{BELIEVED_SETBACK_MS, TICK_BITS, TaskId, TaskIdError, tick_after, unix_ticks};
use crate::day::Day;

const TEXT: &str = "019aa556-e3f2-7abc-9def-0123456789ab";

#[test]
fn an_id_is_a_uuid_v7_that_is_born_now() {
    let before = unix_ticks() >> TICK_BITS;
    let id = TaskId::mint();
    let after = unix_ticks() >> TICK_BITS;
    assert_eq!(TaskId::from_bytes(*id.as_bytes()), Ok(id));
    assert_eq!(id.as_uuid().get_version_num(), 7);
    // Ids of other tests in this process may have run ahead of the clock.
    assert!((before..=after + BELIEVED_SETBACK_MS).contains(&id.born_ms()));
}

#[test]
fn ids_of_one_process_ascend_and_never_repeat() {
    let minters: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| (0..50_000).map(|_| TaskId::mint()).collect::<Vec<_>>()))
        .collect();
    let runs: Vec<Vec<TaskId>> = minters
        .into_iter()
        .map(|minter| minter.join().unwrap())
        .collect();
    for run in &runs {
        assert!(run.is_sorted_by(|earlier, later| earlier < later));
    }
    let distinct: HashSet<_> = runs.iter().flatten().collect();
    assert_eq!(distinct.len(), 200_000);
}

#[test]
fn a_small_step_back_of_the_clock_keeps_the_order_and_a_large_one_is_believed() {
    let last = 1_763_710_000_123 << TICK_BITS;
    let small = last - (BELIEVED_SETBACK_MS << TICK_BITS);
    assert_eq!(tick_after(last, last + 5), last + 5);
    assert_eq!(tick_after(last, last), last + 1);
    assert_eq!(tick_after(last, small), last + 1);
    assert_eq!(tick_after(last, small - 1), small - 1);
}

#[test]
fn the_birth_and_its_day_are_read_from_the_id() {
    let id: TaskId = TEXT.parse().unwrap();
    assert_eq!(id.born_ms(), 0x019a_a556_e3f2);
    assert_eq!(id.birth_day().to_string(), "2025-11-21");
    for ms in [0, 1, 86_400_000, 1_763_710_000_123, (1 << 48) - 1] {
        let id = TaskId::mint_at(ms);
        assert_eq!(id.born_ms(), ms);
        assert_eq!(id.birth_day(), Day::from_unix_ms(ms));
        assert_eq!(TaskId::from_bytes(*id.as_bytes()), Ok(id));
    }
    assert_eq!(TaskId::mint_at(u64::MAX).born_ms(), (1 << 48) - 1);
    assert_ne!(TaskId::mint_at(7), TaskId::mint_at(7));
}

#[test]
fn ids_are_shown_and_read_as_lower_case_text_with_hyphens() {
    let id: TaskId = TEXT.parse().unwrap();
    assert_eq!(id.to_string(), TEXT);
    assert_eq!(format!("{id:?}"), format!("TaskId({TEXT})"));
    assert_eq!(TEXT.to_uppercase().parse(), Ok(id));
    assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{TEXT}\""));
    assert_eq!(
        serde_json::from_str::<TaskId>(&format!("\"{TEXT}\"")).unwrap(),
        id
    );
}

#[test]
fn what_is_no_uuid_v7_is_refused_with_what_it_is() {
    let parse = |text: &str| text.parse::<TaskId>().unwrap_err();
    assert!(matches!(parse("seven"), TaskIdError::NotUuid { found } if found == "seven"));
    let v4 = parse("9b2f3c1e-9d1f-4c5a-8f8e-0123456789ab");
    assert!(matches!(v4, TaskIdError::Version { version: 4, .. }));
    let other_variant = parse("019aa556-e3f2-7abc-1def-0123456789ab");
    assert!(matches!(other_variant, TaskIdError::Variant { .. }));
    assert!(matches!(
        parse(&uuid::Uuid::nil().to_string()),
        TaskIdError::Variant { .. }
    ));
    assert!(serde_json::from_str::<TaskId>("\"9b2f3c1e-9d1f-4c5a-8f8e-0123456789ab\"").is_err());
}

//! What is wrong with registrations is said at start, by exit code 2.

use millrace_consumer::handlers::Found;
use millrace_consumer::{Batching, Context, Policy, TaskError, Unknown, Worker};

use super::stage::{registry, worker};

async fn nothing(_: ()) -> Result<(), TaskError> {
    Ok(())
}

fn refused(worker: Worker) -> String {
    let refusal = worker.prepare().unwrap_err();
    assert_eq!(refusal.code, 2);
    refusal.to_string()
}

#[test]
fn a_type_has_one_handler() {
    let twice = worker(&[])
        .register("a", nothing)
        .register("b", nothing)
        .register("a", nothing);
    assert_eq!(
        refused(twice),
        r#"task type "a" was registered twice; each type has one handler"#
    );
}

#[test]
fn a_type_that_no_event_can_have_is_refused() {
    let empty = refused(worker(&[]).register("", nothing));
    assert!(empty.contains("empty task type"), "{empty}");
    let long = refused(worker(&[]).register(&"x".repeat(256), nothing));
    assert!(long.contains("255"), "{long}");
    let nul = refused(worker(&[]).register("a\0b", nothing));
    assert!(nul.contains(r#""a\0b""#), "{nul}");
}

#[test]
fn a_policy_belongs_to_the_handler_before_it() {
    let nobody = refused(worker(&[]).with(Policy::default()));
    assert!(nobody.contains("there is none"), "{nobody}");
    let cannot_be = Policy {
        max_attempts: 0,
        ..Policy::default()
    };
    let refusal = refused(worker(&[]).register("a", nothing).with(cannot_be));
    assert!(
        refusal.contains(r#"task type "a": policy: max_attempts is 0"#),
        "{refusal}"
    );
}

#[test]
fn a_batch_holds_something() {
    let empty = Batching {
        size: 0,
        ..Batching::default()
    };
    let handler = async |_: Vec<((), Context)>| Vec::<Result<(), TaskError>>::new();
    let refusal = refused(worker(&[]).register_batch("a", empty, handler));
    assert!(refusal.contains("at least 1"), "{refusal}");
}

#[test]
fn an_unknown_type_is_a_dead_letter_unless_told_otherwise() {
    let own = registry(|worker| worker.register("a", nothing).register("b", nothing));
    assert!(matches!(own.find("b"), Found::Handler(index) if own.name(index) == "b"));
    assert_eq!(own.find("c"), Found::Nobody);
    let keeping = registry(|worker| worker.register("a", nothing).unknown(Unknown::Record));
    assert_eq!(keeping.find("c"), Found::Record);
}

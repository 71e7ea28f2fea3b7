//! Dead letters as people handle them: found by a filter, and discarded.

use millrace_store::letters::{self, Filter};
use millrace_store::{Reason, discard};

use crate::redrive::{journal, one_of_each, place, redriven};
use crate::world::World;

#[tokio::test]
async fn a_discarded_letter_stays_in_the_books_and_cannot_be_redriven() {
    let world = World::new("discard").await;
    one_of_each(&world).await;
    let mut connection = world.operations().await;
    let mut kept = journal(&world).await;
    let why = discard::Terms {
        by: "ann@desk",
        reason: "a test",
    };
    let places = [place(1), place(2), place(9)];
    let done = discard::discard(&mut connection, &world.consumer, &places, why, &mut kept)
        .await
        .unwrap();
    assert_eq!(done.len(), 2);
    let kept_rows = "SELECT count(*) FROM dead_letters WHERE discarded_by = 'ann@desk' AND discard_reason = 'a test'";
    assert_eq!(world.number(kept_rows).await, 2);
    assert_eq!(world.progress(0).await.counts.dead_letters, 2);
    assert_eq!(world.results().await, 2, "the failed result stays");
    assert_eq!(world.findings().await, Vec::<String>::new());
    let done = redriven(&world, &[place(1)]).await;
    assert_eq!((done.redriven.len(), done.closed), (0, 1));
}

#[tokio::test]
async fn letters_are_found_by_each_part_of_a_filter() {
    let world = World::new("letter_filter").await;
    let (_, task) = one_of_each(&world).await;
    world
        .sql("UPDATE dead_letters SET created_at = now() - interval '2 hours' WHERE \"offset\" = 2")
        .await;
    let hour = Some(std::time::Duration::from_secs(3_600));
    let any = Filter::default;
    for (filter, wanted) in [
        (any(), vec![1, 2]),
        (
            Filter {
                partitions: vec![1],
                ..any()
            },
            vec![],
        ),
        (
            Filter {
                task_types: vec!["mail".into()],
                ..any()
            },
            vec![1],
        ),
        (
            Filter {
                reasons: vec![Reason::Undecodable],
                ..any()
            },
            vec![2],
        ),
        (
            Filter {
                tenants: vec!["acme".into()],
                ..any()
            },
            vec![1],
        ),
        (
            Filter {
                keys: vec!["k".into(), "l".into()],
                ..any()
            },
            vec![1],
        ),
        (
            Filter {
                task_ids: vec![task.task_id],
                ..any()
            },
            vec![1],
        ),
        (
            Filter {
                older_than: hour,
                ..any()
            },
            vec![2],
        ),
        (
            Filter {
                newer_than: hour,
                ..any()
            },
            vec![1],
        ),
    ] {
        let mut connection = world.operations().await;
        let said = filter.describe();
        let chosen = filter.now(&mut connection).await.unwrap();
        let page = letters::page(&mut connection, &world.consumer, &chosen, None, 10)
            .await
            .unwrap();
        let offsets: Vec<i64> = page.iter().map(|letter| letter.place.offset).collect();
        assert_eq!(offsets, wanted, "{said}");
        let kinds = letters::kinds(&mut connection, &world.consumer, &chosen)
            .await
            .unwrap();
        let counted: i64 = kinds.iter().map(|kind| kind.letters).sum();
        assert_eq!(counted, wanted.len() as i64, "{said}");
    }
    redriven(&world, &[place(1)]).await;
    for (closed_too, wanted) in [(false, vec![2]), (true, vec![1, 2])] {
        let mut connection = world.operations().await;
        let filter = Filter {
            closed_too,
            ..any()
        };
        let chosen = filter.now(&mut connection).await.unwrap();
        let found = letters::list(&mut connection, &world.consumer, &chosen, 10)
            .await
            .unwrap();
        let offsets: Vec<i64> = found.iter().map(|letter| letter.place.offset).collect();
        assert_eq!(offsets, wanted);
    }
}

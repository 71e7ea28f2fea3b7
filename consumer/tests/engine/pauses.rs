//! A pause by type or tenant: nothing of it starts, all else goes on, and no attempt is spent.

use millrace_consumer::{Context, TaskError, Worker};
use millrace_schemas::TaskEvent;
use millrace_store::pauses::{self, Scope};

use super::scene::{PARKED, SUCCESSES, Scene, event};
use super::trail::{Numbered, Trail};

fn handlers(trail: &Trail) -> impl FnOnce(Worker) -> Worker {
    let trail = trail.clone();
    move |mut worker| {
        for task_type in ["paused", "other"] {
            let trail = trail.clone();
            worker = worker.register(task_type, move |task: Numbered, context: Context| {
                let running = trail.enter(&context, task.n);
                async move {
                    let _running = running;
                    Ok::<_, TaskError>(task.n)
                }
            });
        }
        worker
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paused_does_not_start_until_it_is_resumed_also_across_a_restart() {
    for scope in [Scope::TaskType, Scope::Tenant] {
        let scene = Scene::new("engine_pauses", 2).await;
        let mut connection = scene.connect().await;
        pauses::set(&mut connection, scope, "paused", "test", None)
            .await
            .unwrap();
        let trail = Trail::default();
        let worker = scene.work(&[], handlers(&trail));
        let events: Vec<TaskEvent> = (0..200)
            .map(|n| {
                let name = if n % 2 == 0 { "paused" } else { "other" };
                let (task_type, tenant) = match scope {
                    Scope::TaskType => (name, "default"),
                    Scope::Tenant => ("other", name),
                };
                TaskEvent {
                    tenant: tenant.to_owned(),
                    ..event(task_type, Some(&format!("{name} {}", n % 14)), n)
                }
            })
            .collect();
        let (first, later) = events.split_at(100);
        scene.send(first).await;
        scene.until(SUCCESSES, 50).await;
        scene.until(PARKED, 50).await;
        assert_eq!(worker.stop(), 0);
        let worker = scene.work(&[], handlers(&trail));
        scene.send(later).await;
        scene.until(SUCCESSES, 100).await;
        scene.until(PARKED, 100).await;
        assert!(
            trail.runs().iter().all(|run| run.n % 2 == 1),
            "something paused was started"
        );
        assert!(
            pauses::clear(&mut connection, scope, "paused", "test")
                .await
                .unwrap()
        );
        scene.until(SUCCESSES, 200).await;
        scene.until(PARKED, 0).await;
        assert_eq!(trail.count(), 200);
        assert_eq!(
            scene
                .number("SELECT max(attempts)::bigint FROM task_results")
                .await,
            1
        );
        trail.assert_key_order();
        assert_eq!(worker.stop(), 0);
        scene.assert_books().await;
    }
}

//! Ctrl-C.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::scene::{Scene, ended, numbered};

fn interrupt(child: &std::process::Child) {
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
}

#[test]
fn an_interrupted_run_says_up_to_which_line_everything_is_acknowledged() {
    let scene = Scene::new();
    let file = scene.file("a.ndjson", numbered(100_000));
    let child = scene.spawn(&["--rate", "500", &file]);
    scene.wait_for_count(100);
    interrupt(&child);
    let ended = ended(child.wait_with_output().unwrap());
    let (read, acknowledged, rejected) = ended.counts();
    assert_eq!((ended.code, rejected), (130, 0), "{}", ended.words);
    assert!(read == acknowledged && (100..100_000).contains(&read));
    assert_eq!(u64::try_from(scene.count()).unwrap(), acknowledged);
    let line = format!("every event up to line {acknowledged} is acknowledged");
    assert!(ended.words.contains(&line), "{}", ended.words);
    assert!(
        ended
            .words
            .contains(&format!("--from-line {}", acknowledged + 1)),
        "{}",
        ended.words
    );
}

#[test]
fn a_blocked_read_does_not_hold_up_an_interrupt() {
    let scene = Scene::new();
    let mut child = scene.spawn(&["-"]);
    let open = child.stdin.take();
    std::io::Write::write_all(&mut open.as_ref().unwrap(), b"{\"n\":1}\n").unwrap();
    scene.wait_for_count(1);
    interrupt(&child);
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(
        (ended.code, ended.counts()),
        (130, (1, 1, 0)),
        "{}",
        ended.words
    );
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let scene = Scene::new();
    let not_enough = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    scene
        .broker
        .fail_next(RDKafkaApiKey::Produce, not_enough, 100_000);
    let file = scene.file("a.ndjson", numbered(1_000));
    let mut child = scene.spawn(&["--log", "debug", &file]);
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut log, "the topic is there");
    interrupt(&child);
    wait_for(&mut log, "interrupt again");
    interrupt(&child);
    let begun = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed().as_secs() < 4);
}

fn wait_for(log: &mut impl std::io::BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "the log ended before {text:?}"
        );
    }
}

use super::super::format::FormatChoice;
use super::super::pointer::Fields;
use super::super::source::Input;
use super::*;

fn plan(inputs: &[&str]) -> Plan {
    Plan {
        inputs: inputs.iter().map(|name| Input::File(name.into())).collect(),
        format: FormatChoice::Auto,
        task_type: "t".into(),
        tenant: "default".into(),
        fields: Fields::default(),
        once: false,
        rate: None,
        from_line: 1,
        rejects: None,
        max_event_bytes: 1_000_000,
    }
}

fn at(file: usize, line: u64) -> Place {
    Place { file, line }
}

fn end(through: Option<u64>, read: Option<u64>, ended: bool) -> FileEnd {
    FileEnd {
        through,
        read,
        ended,
    }
}

fn report(stop: Option<Stop>, files: Vec<FileEnd>) -> Report {
    Report {
        summary: Summary::default(),
        stop,
        files,
        left: None,
        beyond: None,
    }
}

#[test]
fn a_rejected_line_is_told_with_its_place_and_both_ways_to_go_on() {
    let stop = Stop::Rejected {
        place: at(0, 17),
        misfit: Misfit::shape(5, "not UTF-8"),
    };
    let words =
        report(Some(stop), vec![end(Some(16), Some(17), false)]).words(&plan(&["a.ndjson"]));
    assert_eq!(words[0], "a.ndjson:17:5: rejected: not UTF-8");
    assert_eq!(words[1], "every event before it is acknowledged");
    assert!(
        words[2].contains("--from-line 17, or leave it out with --from-line 18; --rejects FILE")
    );
}

#[test]
fn with_several_files_it_is_told_what_to_send_afterwards() {
    let stop = Stop::Rejected {
        place: at(1, 3),
        misfit: Misfit::shape(1, "bad"),
    };
    let files = vec![
        end(Some(9), Some(9), true),
        end(Some(2), Some(3), false),
        FileEnd::default(),
    ];
    let words = report(Some(stop), files).words(&plan(&["a", "b", "c"]));
    assert!(
        words[2].contains("--from-line 4 and b alone, then send c"),
        "{}",
        words[2]
    );
}

#[test]
fn a_line_that_the_broker_refused_names_what_was_sent_behind_it() {
    let stop = Stop::Refused {
        place: at(0, 4),
        misfit: Misfit::shape(1, "too large"),
    };
    let report = Report {
        left: Some((1, at(0, 4), at(0, 4))),
        beyond: Some(at(0, 90)),
        ..report(Some(stop), vec![end(Some(3), Some(90), false)])
    };
    let words = report.words(&plan(&["a"]));
    assert_eq!(words[1], "every other event up to a:90 is acknowledged");
    assert!(words[2].contains("--from-line 91"));
}

#[test]
fn an_interrupt_says_up_to_which_line_each_file_is_acknowledged() {
    let files = vec![
        end(Some(9), Some(9), true),
        end(Some(20), Some(25), false),
        FileEnd::default(),
    ];
    let report = Report {
        summary: Summary {
            unknown: 2,
            not_sent: 3,
            ..Summary::default()
        },
        left: Some((5, at(1, 21), at(1, 25))),
        ..report(Some(Stop::Interrupted), files)
    };
    let words = report.words(&plan(&["a", "b", "c"])).join("\n");
    assert!(words.contains("a: acknowledged to its end, line 9"));
    assert!(words.contains("b: every event up to line 20 is acknowledged"));
    assert!(words.contains("5 events, b:21 to b:25, were not acknowledged: 2 unknown, not failed (they may be in the topic or not), 3 not sent"));
    assert!(words.contains("--from-line 21 and b alone, then send c"));
    assert!(words.contains("will be there twice"));
}

#[test]
fn with_a_dedup_key_the_same_command_is_simply_run_again() {
    let report = Report {
        summary: Summary {
            unknown: 5,
            ..Summary::default()
        },
        left: Some((5, at(0, 21), at(0, 25))),
        ..report(
            Some(Stop::Unanswered {
                reason: "no answer".into(),
            }),
            vec![end(Some(20), Some(25), false)],
        )
    };
    let words = report
        .words(&Plan {
            once: true,
            ..plan(&["a"])
        })
        .join("\n");
    assert!(words.contains("unknown, not failed"));
    assert!(words.contains("run the same command again"));
    assert!(!words.contains("--from-line"));
}

#[test]
fn before_anything_was_read_the_way_on_is_the_same_command() {
    let words = report(Some(Stop::Interrupted), vec![FileEnd::default()]).words(&plan(&["a"]));
    assert_eq!(
        words,
        ["interrupted", "to go on, run again with --from-line 1"]
    );
}

#[test]
fn rejects_that_were_written_down_are_pointed_to() {
    let summary = Summary {
        rejected: 1_200,
        ..Summary::default()
    };
    let report = Report {
        summary,
        ..report(None, vec![end(Some(9), Some(9), true)])
    };
    let words = report.words(&Plan {
        rejects: Some("bad.ndjson".into()),
        ..plan(&["a"])
    });
    assert_eq!(words, ["1,200 rejected: see bad.ndjson"]);
}

#[test]
fn an_input_that_breaks_off_is_told_with_the_last_line_read() {
    let stop = Stop::Unreadable {
        file: 0,
        error: io::ErrorKind::UnexpectedEof.into(),
    };
    let words = report(Some(stop), vec![end(Some(7), Some(7), false)]).words(&plan(&["a.gz"]));
    assert!(words[0].starts_with("a.gz: cannot be read behind line 7: "));
    assert!(words[2].contains("--from-line 8"));
}

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

use std::path::Path;

use super::*;

fn reading(inputs: &[&Path]) -> Reading {
    Reading {
        inputs: inputs
            .iter()
            .map(|path| Input::File(path.to_path_buf()))
            .collect(),
        format: FormatChoice::Auto,
        from_line: 1,
        fields: Fields::default(),
        limit: 1_000_000,
        digest: false,
    }
}

/// Everything that is told, one line a message.
fn told(reading: Reading) -> Vec<String> {
    let rows = Rows::start(reading, Interrupt::default()).unwrap();
    let mut told = Vec::new();
    loop {
        match rows.next(Duration::from_secs(10)) {
            Err(Finished) => return told,
            Ok(None) => panic!("nothing was told for ten seconds after {told:?}"),
            Ok(Some(Message::Begin { file, digest })) => {
                told.push(format!("begin {file} {digest:?}"))
            }
            Ok(Some(Message::End { file })) => told.push(format!("end {file}")),
            Ok(Some(Message::Broken { file, error })) => {
                told.push(format!("broken {file} {error}"))
            }
            Ok(Some(Message::Rows(batch))) => {
                for row in &batch.rows {
                    let text = row.event.as_ref().map_or(&row.raw, |event| &event.payload);
                    told.push(format!(
                        "{}: {}",
                        row.line,
                        String::from_utf8_lossy(batch.text(text))
                    ));
                }
                rows.recycle(batch);
            }
        }
    }
}

#[test]
fn inputs_come_one_after_another_each_in_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, lines, absent) = (
        folder.path().join("a.csv"),
        folder.path().join("b"),
        folder.path().join("c"),
    );
    std::fs::write(&csv, "id,name\n1,x\n").unwrap();
    std::fs::write(&lines, "{}\n\n{\"b\":1}").unwrap();
    let told = told(reading(&[&csv, &lines, &absent]));
    assert_eq!(
        told[..7],
        [
            "begin 0 None",
            "2: {\"id\":\"1\",\"name\":\"x\"}",
            "end 0",
            "begin 1 None",
            "1: {}",
            "3: {\"b\":1}",
            "end 1"
        ]
    );
    assert!(told[7].starts_with("broken 2 No such file"));
}

#[test]
fn the_digest_is_that_of_the_unpacked_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, packed) = (
        folder.path().join("a.ndjson"),
        folder.path().join("a.ndjson.zst"),
    );
    std::fs::write(&plain, "{}\n").unwrap();
    std::fs::write(&packed, zstd::stream::encode_all(&b"{}\n"[..], 1).unwrap()).unwrap();
    let told = told(Reading {
        digest: true,
        ..reading(&[&plain, &packed])
    });
    assert_eq!(told[0].replace("begin 0", "begin 1"), told[3]);
    assert!(told[0].contains(&blake3::hash(b"{}\n").to_hex().to_string()));
}

#[test]
fn rows_larger_than_a_chunk_and_many_of_them_come_out_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.ndjson");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(700_000));
    let text = format!("{large}\n{}{large}\n", "{\"b\":2}\n".repeat(100_000));
    std::fs::write(&path, &text).unwrap();
    let told = told(reading(&[&path]));
    let rows: Vec<_> = told[1..told.len() - 1]
        .iter()
        .map(|told| told.split_once(": ").unwrap())
        .collect();
    assert!(
        rows.iter()
            .map(|(line, _)| line.parse::<usize>().unwrap())
            .eq(1..=100_002)
    );
    assert!(rows.iter().map(|(_, text)| *text).eq(text.lines()));
}

#[test]
fn a_cut_off_packed_file_gives_out_what_could_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.ndjson.zst");
    let lines: String = (0..200_000)
        .map(|number| format!("{{\"n\":{number}}}\n"))
        .collect();
    let mut packed = zstd::stream::encode_all(lines.as_bytes(), 1).unwrap();
    packed.truncate(packed.len() / 2);
    std::fs::write(&path, packed).unwrap();
    let told = told(reading(&[&path]));
    assert_eq!(told[1], "1: {\"n\":0}");
    assert!(
        told.last().unwrap().starts_with("broken 0"),
        "{:?}",
        told.last()
    );
}

#[test]
fn keys_are_picked_up_on_the_way_unescaped_or_as_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ndjson");
    std::fs::write(
        &path,
        "{\"k\":\"a\",\"d\":7}\n\n{\"d\":\"\\u00e9\",\"k\":\"b\"}\n{\"k\":1}\n",
    )
    .unwrap();
    let fields = Fields {
        key: Some("/k".parse().unwrap()),
        dedup: Some("/d".parse().unwrap()),
    };
    let reading = Reading {
        fields,
        ..reading(&[&path])
    };
    let rows = Rows::start(reading, Interrupt::default()).unwrap();
    let batch = loop {
        if let Some(Message::Rows(batch)) = rows.next(Duration::from_secs(10)).unwrap() {
            break batch;
        }
    };
    let keys: Vec<_> = batch
        .rows
        .iter()
        .map(|row| {
            let event = row
                .event
                .as_ref()
                .map_err(|fault| fault.misfit.reason.clone())?;
            Ok((
                batch.key(event.key.as_ref()),
                batch.key(event.dedup.as_ref()),
            ))
        })
        .collect();
    let missing = Err("there is no field /d".to_owned());
    assert_eq!(
        keys,
        [
            Ok((Some("a"), Some("7"))),
            Ok((Some("b"), Some("é"))),
            missing
        ]
    );
}

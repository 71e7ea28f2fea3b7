#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its case has failed"
)]

use proptest::prelude::*;

use super::super::batch::test_split::{Read, read};
use super::*;

fn rows(chunks: &[&[u8]], from_line: u64, limit: usize) -> Vec<Read> {
    let mut csv = CsvRows::new(from_line, limit);
    read(chunks, |bytes, last, made, rows| {
        csv.split(bytes, last, made, rows).unwrap()
    })
}

fn events(text: &str) -> Vec<(u64, Result<String, String>)> {
    rows(&[text.as_bytes()], 1, 1_000)
        .into_iter()
        .map(|row| (row.line, row.event))
        .collect()
}

fn good(line: u64, json: &str) -> (u64, Result<String, String>) {
    (line, Ok(json.to_owned()))
}

#[test]
fn a_row_becomes_an_object_of_strings_in_the_headers_order() {
    assert_eq!(
        events("zeta,alpha\r\n1,\"say \"\"hi\"\"\"\r\n,\n"),
        [
            good(2, r#"{"zeta":"1","alpha":"say \"hi\""}"#),
            good(3, r#"{"zeta":"","alpha":""}"#)
        ]
    );
}

#[test]
fn a_row_is_named_by_the_physical_line_where_it_begins() {
    let text = "a,b\n\"x\n\ny\",1\n\r\n2,\"\n\"\n3,4";
    assert_eq!(
        events(text),
        [
            good(2, r#"{"a":"x\n\ny","b":"1"}"#),
            good(6, r#"{"a":"2","b":"\n"}"#),
            good(8, r#"{"a":"3","b":"4"}"#),
        ]
    );
    let from_6 = rows(&[text.as_bytes()], 6, 1_000);
    assert_eq!(
        from_6.iter().map(|row| row.line).collect::<Vec<_>>(),
        [6, 8]
    );
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_column() {
    assert_eq!(events("\u{feff}id\n7\n"), [good(2, r#"{"id":"7"}"#)]);
    assert_eq!(
        events("\u{feff}\"id\",b\n7,8\n"),
        [good(2, r#"{"id":"7","b":"8"}"#)]
    );
}

#[test]
fn a_wrong_row_is_told_with_its_column_and_the_next_one_is_read() {
    let text = "é,b\n1\n2,3,4,5\n\"x\"y,1\nü,\"a\" \n9,10\n";
    assert_eq!(
        events(text),
        [
            (2, Err("2: the row has 1 fields, the header 2".into())),
            (3, Err("5: the row has 4 fields, the header 2".into())),
            (
                4,
                Err("4: expected a comma behind the closing quote".into())
            ),
            (
                5,
                Err("6: expected a comma behind the closing quote".into())
            ),
            good(6, r#"{"é":"9","b":"10"}"#),
        ]
    );
    let found = rows(&[b"a\nx\xff\ny\n"], 1, 100);
    assert_eq!(found[0].event, Err("2: not UTF-8".into()));
    assert_eq!(found[1].event, Ok(r#"{"a":"y"}"#.into()));
}

#[test]
fn a_quote_that_is_never_closed_ends_the_input_without_holding_it() {
    let found = rows(&[b"a,b\n1,2\n3,\"4\n5,6\n"], 1, 1_000);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].line, 3);
    assert!(
        found[1]
            .event
            .as_ref()
            .is_err_and(|reason| reason.contains("never closed"))
    );
    let mut chunks: Vec<&[u8]> = vec![b"a\n\"x"];
    chunks.extend(std::iter::repeat_n(&b"0123456789\n"[..], 100));
    let found = rows(&chunks, 1, 64);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].line, found[0].raw.len()), (2, 64));
}

#[test]
fn a_header_that_names_a_column_twice_is_refused() {
    assert_eq!(
        events("a,b,a\n1,2,3\n"),
        [(
            1,
            Err("1: the header names the column \"a\" twice; nothing behind it is read".into())
        )]
    );
}

#[test]
fn an_empty_input_has_no_rows() {
    assert_eq!(events(""), []);
    assert_eq!(events("\n\r\n"), []);
    assert_eq!(events("a,b\n"), []);
}

#[test]
fn the_raw_text_is_the_row_as_it_stands() {
    let found = rows(&[b"a,b\r\n\"1\",2\r\n3\r\n"], 1, 100);
    assert_eq!(
        found.iter().map(|row| row.raw.as_str()).collect::<Vec<_>>(),
        ["\"1\",2", "3"]
    );
}

proptest! {
    #[test]
    fn any_table_written_by_the_csv_crate_is_read_back(
        table in prop::collection::vec(prop::collection::vec("[a,\"\r\n é]{0,5}", 3), 0..6),
        cuts in prop::collection::vec(0..200_usize, 0..5),
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["x", "y", "z"]).unwrap();
        for row in &table {
            writer.write_record(row).unwrap();
        }
        let text = writer.into_inner().unwrap();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let expected: Vec<_> = table
            .iter()
            .map(|row| {
                let field = |index: usize| serde_json::to_string(&row[index]).unwrap();
                Ok(format!(r#"{{"x":{},"y":{},"z":{}}}"#, field(0), field(1), field(2)))
            })
            .collect();
        let found: Vec<_> = rows(&chunks, 1, 10_000).into_iter().map(|row| row.event).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_text_makes_it_panic_or_lose_the_line_count(text in "[a,\"\r\n]{0,40}") {
        let physical = text.split('\n').count() as u64;
        for row in rows(&[text.as_bytes()], 1, 1_000) {
            prop_assert!((1..=physical).contains(&row.line));
        }
    }
}

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its case has failed"
)]

use proptest::prelude::*;

use super::*;

fn fields(key: &str) -> Fields {
    Fields {
        key: Some(key.parse().unwrap()),
        dedup: None,
    }
}

fn key(pointer: &str, line: &str) -> Result<String, (u64, String)> {
    fields(pointer)
        .read(line.as_bytes())
        .map(|picked| picked.key.unwrap().into_owned())
        .map_err(|misfit| (misfit.column, misfit.reason))
}

fn misfit(line: &[u8]) -> (u64, String) {
    let misfit = Fields::default().read(line).unwrap_err();
    (misfit.column, misfit.reason)
}

#[test]
fn strings_are_taken_as_they_are_and_unescaped() {
    assert_eq!(key("/id", r#"{"id":"a b"}"#).unwrap(), "a b");
    assert_eq!(key("/id", r#"{"id":""}"#).unwrap(), "");
    assert_eq!(key("/id", r#"{"id":"a\"\u00e9\n"}"#).unwrap(), "a\"é\n");
}

#[test]
fn integers_and_booleans_are_taken_by_their_json_text() {
    assert_eq!(
        key("/id", r#"{"id": 12345678901234567890123 }"#).unwrap(),
        "12345678901234567890123"
    );
    assert_eq!(key("/id", r#"{"id":-7}"#).unwrap(), "-7");
    assert_eq!(key("/id", r#"{"id":true}"#).unwrap(), "true");
}

#[test]
fn null_objects_arrays_and_fractions_are_no_keys_and_the_column_is_theirs() {
    for (line, column, what) in [
        (r#"{"id":null}"#, 7, "null"),
        (r#"{"é":1,"id": {}}"#, 14, "an object"),
        (r#"{"id":[1]}"#, 7, "an array"),
        (r#"{"id":1.5}"#, 7, "a number with a fraction"),
        (r#"{"id":1e3}"#, 7, "a number with a fraction"),
        (r#"{"id":"\ud800"}"#, 7, "a string with a broken escape"),
    ] {
        let (at, reason) = key("/id", line).unwrap_err();
        assert_eq!(at, column, "{line}");
        assert!(reason.contains(what), "{line}: {reason}");
    }
}

#[test]
fn a_missing_field_is_named() {
    assert_eq!(
        key("/a/id", r#"{"a":{"b":1}}"#).unwrap_err().1,
        "there is no field /a/id"
    );
    assert_eq!(
        key("/a/id", r#"{"a":7}"#).unwrap_err().1,
        "there is no field /a/id"
    );
    assert_eq!(
        key("/a/3", r#"{"a":[0,1,2]}"#).unwrap_err().1,
        "there is no field /a/3"
    );
}

#[test]
fn a_pointer_goes_through_objects_arrays_and_escaped_names() {
    assert_eq!(key("/a/1/b", r#"{"a":[0,{"b":"x"}],"b":2}"#).unwrap(), "x");
    assert_eq!(key("/a~1b/m~0n", r#"{"a/b":{"m~n":1}}"#).unwrap(), "1");
    assert_eq!(key("/", r#"{"":5}"#).unwrap(), "5");
    assert_eq!(key("/k", r#"{"\u006b":5}"#).unwrap(), "5");
}

#[test]
fn of_a_member_that_is_there_twice_the_last_one_counts() {
    assert_eq!(key("/id", r#"{"id":1,"id":2}"#).unwrap(), "2");
    assert!(key("/a/id", r#"{"a":{"id":1},"a":{}}"#).is_err());
}

#[test]
fn both_pointers_may_name_the_same_field_or_one_inside_the_other() {
    let both = |key: &str, dedup: &str| Fields {
        key: Some(key.parse().unwrap()),
        dedup: Some(dedup.parse().unwrap()),
    };
    let same = both("/id", "/id");
    let picked = same.read(br#"{"id":9}"#).unwrap();
    assert_eq!(
        (picked.key.as_deref(), picked.dedup.as_deref()),
        (Some("9"), Some("9"))
    );
    let apart = both("/a/x", "/a/y/0");
    let picked = apart.read(br#"{"a":{"x":"k","y":["d"]}}"#).unwrap();
    assert_eq!(
        (picked.key.as_deref(), picked.dedup.as_deref()),
        (Some("k"), Some("d"))
    );
    let inside = both("/a", "/a/b");
    assert!(
        inside
            .read(br#"{"a":{"b":1}}"#)
            .unwrap_err()
            .reason
            .contains("/a is an object")
    );
}

#[test]
fn a_line_that_is_no_json_object_is_told_with_its_column() {
    assert_eq!(
        misfit(b"[1]"),
        (1, "expected a JSON object, found an array".into())
    );
    assert_eq!(
        misfit(b"  42"),
        (3, "expected a JSON object, found a number".into())
    );
    assert_eq!(
        misfit(b"oops"),
        (1, "expected a JSON object, found something else".into())
    );
    assert_eq!(
        misfit(br#"{"a":1} x"#),
        (9, "broken JSON: trailing characters".into())
    );
    assert_eq!(
        misfit(br#"{"a":}"#),
        (6, "broken JSON: expected value".into())
    );
    assert_eq!(
        misfit("{\"é\":\"\u{1}\"}".as_bytes()).0,
        6,
        "columns count characters, not bytes"
    );
    assert_eq!(misfit(b"{\"a\":\"x\xff\"}"), (8, "not UTF-8".into()));
    assert!(misfit(br#"{"a":1"#).1.contains("EOF"));
}

#[test]
fn a_pointer_that_cannot_be_meant_is_refused() {
    assert_eq!("".parse::<Pointer>().unwrap_err(), PointerError::WholeEvent);
    assert_eq!(
        "id".parse::<Pointer>().unwrap_err(),
        PointerError::NoSlash("id".into())
    );
    assert_eq!(
        "/a~2".parse::<Pointer>().unwrap_err(),
        PointerError::Tilde("/a~2".into())
    );
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let deep = format!(
        r#"{{"a":{}{},"id":1}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(key("/id", &deep).unwrap(), "1");
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("[ab/~]{0,2}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_pointer_finds_what_serde_json_finds(value in json(), path in "(/[ab01~]{0,2}){1,3}") {
        prop_assume!(value.is_object());
        let Ok(pointer) = path.parse::<Pointer>() else { return Ok(()) };
        let expected = match value.pointer(&path) {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => Some(value.to_string()),
            _ => None,
        };
        let line = value.to_string();
        let fields = Fields { key: Some(pointer), dedup: None };
        let found = fields.read(line.as_bytes()).ok().and_then(|picked| picked.key).map(Cow::into_owned);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_line_is_taken_exactly_when_serde_json_reads_an_object(line in r#"[{}\[\]",:a1 \\]{0,12}"#) {
        let object = serde_json::from_str::<Box<RawValue>>(&line).is_ok_and(|raw| raw.get().starts_with('{'));
        prop_assert_eq!(Fields::default().read(line.as_bytes()).is_ok(), object);
    }
}

//! The page follows a task to its result, also past a front door that fails meanwhile.

use std::process::Command;

#[test]
fn the_page_shows_a_result_that_could_not_be_had_at_once() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/door/page_follow.mjs");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/src/door/http/page/index.html");
    // Scripts are run by Node.js; without it nothing can be said.
    let Ok(ran) = Command::new("node").args([tests, page]).output() else {
        eprintln!("skipped: there is no node");
        return;
    };
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
}

//! Suites that need Debian's `prometheus` package.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Whether the program is here. Where it is not, the suite is noted for the end of `make test`
/// (in the file that `MILLRACE_TEST_NOT_RUN` names); with `CI` set that is a failure.
pub(crate) fn can_run(suite: &str, program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    let reason = format!("`{program}` is missing, install the package prometheus");
    assert!(
        std::env::var_os("CI").is_none(),
        "suite `{suite}` cannot run: {reason}"
    );
    eprintln!("suite `{suite}` cannot run: {reason}");
    if let Some(list) = std::env::var_os("MILLRACE_TEST_NOT_RUN") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(list)
            .expect("the list");
        writeln!(file, "{suite}: {reason}").expect("the list");
    }
    false
}

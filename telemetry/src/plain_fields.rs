//! Fields of log lines as text, for a log that goes to no terminal.
//!
//! What comes out is what the library's own format gives without colours. It is written here since every attempt
//! of a handler opens a span with fields: they are put together in memory that is there already, and handed
//! over in one piece.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// What is kept of the memory in which fields are put together.
const KEPT_BYTES: usize = 4_096;

thread_local! {
    // Taken while it is in use, so that a value that logs while it is formatted finds another one.
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
}

/// `name=value name=value`, the message without its name; see the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PlainFields;

impl<'writer> FormatFields<'writer> for PlainFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut text = SCRATCH.take();
        text.clear();
        let mut line = Line {
            text: &mut text,
            result: Ok(()),
        };
        fields.record(&mut line);
        let written = line.result.and_then(|()| writer.write_str(&text));
        if text.capacity() <= KEPT_BYTES {
            SCRATCH.set(text);
        }
        written
    }
}

struct Line<'text> {
    text: &'text mut String,
    result: fmt::Result,
}

impl Line<'_> {
    /// Writes a field in the plain way, unless its name says that the library has a way of its own for it.
    fn plain(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_err() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(field.name());
        self.text.push('=');
        self.result = self.text.write_fmt(value);
    }

    /// Has the library write a field.
    fn as_ever(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        if self.result.is_err() {
            return;
        }
        let is_empty = self.text.is_empty();
        let mut visitor = DefaultVisitor::new(Writer::new(self.text), is_empty);
        record(&mut visitor);
        self.result = visitor.finish();
    }
}

/// Messages are made safe for terminals, raw identifiers lose their mark, and records of the `log` crate carry
/// fields that are not shown.
fn is_special(field: &Field) -> bool {
    let name = field.name();
    name == "message" || name.starts_with("r#") || name.starts_with("log.")
}

impl Visit for Line<'_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if is_special(field) {
            self.as_ever(|visitor| visitor.record_i64(field, value));
        } else {
            self.plain(field, format_args!("{value}"));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if is_special(field) {
            self.as_ever(|visitor| visitor.record_u64(field, value));
        } else {
            self.plain(field, format_args!("{value}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if is_special(field) {
            self.as_ever(|visitor| visitor.record_str(field, value));
        } else {
            self.plain(field, format_args!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.as_ever(|visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if is_special(field) {
            self.as_ever(|visitor| visitor.record_debug(field, value));
        } else {
            self.plain(field, format_args!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// A value that logs while it is formatted.
    struct Talks;

    impl Debug for Talks {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            tracing::info!(depth = 1, "from within");
            f.write_str("Talks")
        }
    }

    fn speak() {
        let error = io::Error::other(io::Error::other("the cause"));
        let _span = tracing::info_span!(
            "outer",
            topic = "a\"b",
            partition = -3,
            unset = tracing::field::Empty
        )
        .entered();
        tracing::info!(r#type = "x", done = true, part = 0.5, task = %"t", "said \u{1b}[31m");
        tracing::warn!(error = &error as &(dyn Error + 'static), path = ?Some("p"), "went wrong");
        tracing::info!(only = u64::MAX);
        tracing::info!(talks = ?Talks, after = 1, "from without");
        tracing::Span::current().record("unset", 7);
        tracing::info!("later");
    }

    #[test]
    fn lines_are_those_of_the_library() {
        let (ours, theirs) = (Kept::default(), Kept::default());
        let plain = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(ours.clone())
            .fmt_fields(PlainFields)
            .finish();
        tracing::subscriber::with_default(plain, speak);
        let library = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(theirs.clone())
            .finish();
        tracing::subscriber::with_default(library, speak);
        let text = |kept: Kept| String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let (ours, theirs) = (text(ours), text(theirs));
        assert_eq!(ours.lines().count(), 5, "{ours}");
        assert_eq!(ours, theirs);
    }
}

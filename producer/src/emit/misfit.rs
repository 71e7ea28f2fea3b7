//! Why a line does not become an event.

use thiserror::Error;

/// The sort of misfit: what a counter tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MisfitKind {
    /// No JSON object, or no row of the CSV file.
    NotAnObject,
    /// A field that a pointer names is not there.
    MissingField,
    /// A field that a pointer names can be no key.
    WrongFieldType,
    /// Over the size limit, here or at the broker.
    TooLarge,
    /// A field is out of its range, or the broker refused the record.
    Other,
}

impl MisfitKind {
    /// The kind as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            MisfitKind::NotAnObject => "not_an_object",
            MisfitKind::MissingField => "missing_field",
            MisfitKind::WrongFieldType => "wrong_field_type",
            MisfitKind::TooLarge => "too_large",
            MisfitKind::Other => "other",
        }
    }
}

/// Why a line does not become an event, and where in the line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Misfit {
    /// What sort of misfit.
    pub kind: MisfitKind,
    /// Character of the line, counted from 1; of a CSV row that spans lines, of the row.
    pub column: u64,
    /// What was expected and what was found.
    pub reason: String,
}

impl Misfit {
    /// A line that is no object or row.
    pub fn shape(column: u64, reason: impl Into<String>) -> Self {
        Misfit {
            kind: MisfitKind::NotAnObject,
            column,
            reason: reason.into(),
        }
    }
}

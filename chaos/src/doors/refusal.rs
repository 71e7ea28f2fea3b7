//! Refusals as `docs/API.md` has them: a name, a status code, a gRPC code, and when to come again.
//!
//! An answer that is none of these is not a clean one, whatever its status.

use serde_json::Value;
use tonic::Code;

use super::http::Answer;

pub(super) const IN_PROGRESS: &str = "idempotency-key-in-progress";
pub(super) const REUSED: &str = "idempotency-key-reused";
pub(super) const OUTCOME_UNKNOWN: &str = "outcome-unknown";
const UNAVAILABLE: &str = "unavailable";
const RATE_LIMITED: &str = "rate-limited";

/// Name, status and code.
const DOCUMENTED: [(&str, u16, Code); 12] = [
    ("bad-request", 400, Code::InvalidArgument),
    ("unauthorized", 401, Code::Unauthenticated),
    ("forbidden", 403, Code::PermissionDenied),
    ("not-found", 404, Code::NotFound),
    (IN_PROGRESS, 409, Code::Aborted),
    ("gone", 410, Code::NotFound),
    (REUSED, 422, Code::AlreadyExists),
    ("task-failed", 422, Code::FailedPrecondition),
    (RATE_LIMITED, 429, Code::ResourceExhausted),
    ("internal", 500, Code::Internal),
    (UNAVAILABLE, 503, Code::Unavailable),
    (OUTCOME_UNKNOWN, 503, Code::Unknown),
];

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// Its name.
    pub name: String,
    text: String,
}

impl Refusal {
    /// Reads an answer that is no success.
    ///
    /// # Errors
    /// It is not as documented.
    pub(super) fn of_answer(answer: &Answer) -> Result<Self, String> {
        let text = answer.text();
        if !answer
            .content_type()
            .starts_with("application/problem+json")
        {
            return Err(text);
        }
        let problem: Value = serde_json::from_slice(&answer.body).map_err(|_| text.clone())?;
        let name = name_of(&problem).ok_or_else(|| text.clone())?;
        let says_when = answer.header("retry-after").is_some();
        Self::documented(name, text, says_when, |_, status, _| {
            status == answer.status
        })
    }

    /// Reads a problem within an answer.
    ///
    /// # Errors
    /// It is not as documented.
    pub(super) fn of_problem(problem: &Value) -> Result<Self, String> {
        let text = problem.to_string();
        let name = name_of(problem).ok_or_else(|| text.clone())?;
        let says_when = problem.get("retry_after").is_some();
        Self::documented(name, text, says_when, |_, status, _| {
            problem.get("status").and_then(Value::as_u64) == Some(status.into())
        })
    }

    /// Reads how a call ended; `None` when it does not come from the front door, but from a connection that broke.
    ///
    /// # Errors
    /// It is not as documented.
    pub(super) fn of_status(status: &tonic::Status) -> Option<Result<Self, String>> {
        let metadata = status.metadata();
        let name = metadata.get("millrace-problem")?.to_str().ok()?;
        let says_when = metadata.contains_key("retry-after");
        let text = format!("{:?} {name}: {}", status.code(), status.message());
        Some(Self::documented(name, text, says_when, |_, _, code| {
            code == status.code()
        }))
    }

    fn documented(
        name: &str,
        text: String,
        says_when: bool,
        fits: impl Fn(&str, u16, Code) -> bool,
    ) -> Result<Self, String> {
        let known = DOCUMENTED
            .into_iter()
            .any(|(known, status, code)| known == name && fits(known, status, code));
        let has_when = says_when || ![IN_PROGRESS, RATE_LIMITED, UNAVAILABLE].contains(&name);
        if known && has_when {
            Ok(Self {
                name: name.to_owned(),
                text,
            })
        } else {
            Err(text)
        }
    }

    /// Whether it asks to come again.
    pub(super) fn says_later(&self) -> bool {
        self.says_not_taken() || self.name == OUTCOME_UNKNOWN
    }

    /// Whether it says that nothing was accepted.
    pub(super) fn says_not_taken(&self) -> bool {
        [UNAVAILABLE, RATE_LIMITED].contains(&self.name.as_str())
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// The name in a problem's `type`, if the problem is whole.
fn name_of(problem: &Value) -> Option<&str> {
    problem.get("detail")?.as_str()?;
    problem.get("type")?.as_str()?.strip_prefix("/problems/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_counts_only_with_its_own_status_and_where_it_has_to_be_with_its_time() {
        let problem = |name: &str, status: u16, when: Option<u64>| {
            let mut problem =
                json!({"type": format!("/problems/{name}"), "status": status, "detail": "why"});
            if let (Some(fields), Some(when)) = (problem.as_object_mut(), when) {
                fields.insert("retry_after".to_owned(), json!(when));
            }
            Refusal::of_problem(&problem).is_ok()
        };
        assert!(problem(UNAVAILABLE, 503, Some(1)));
        assert!(!problem(UNAVAILABLE, 503, None));
        assert!(!problem(UNAVAILABLE, 500, Some(1)));
        assert!(problem(OUTCOME_UNKNOWN, 503, None));
        assert!(!problem("something-else", 503, Some(1)));
    }
}

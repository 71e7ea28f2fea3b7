//! Inputs and outputs of typed handlers: JSON, by serde.

use millrace_store::Output;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attempt::AttemptEnd;

/// Media type of a typed handler's result.
const CONTENT_TYPE: &str = "application/json";

/// The input of a task. What does not fit the type now never will, so it is a permanent failure.
pub(super) fn input<T: DeserializeOwned>(payload: &[u8]) -> Result<T, AttemptEnd> {
    serde_json::from_slice(payload).map_err(|error| refused::<T>(payload, &error))
}

/// Reads the input again, to say at which of its fields it went wrong.
#[cold]
fn refused<T: DeserializeOwned>(payload: &[u8], error: &serde_json::Error) -> AttemptEnd {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let found: Result<T, _> = serde_path_to_error::deserialize(&mut json);
    let path = found
        .err()
        .map(|error| error.path().to_string())
        .filter(|path| path != ".");
    AttemptEnd::permanent(match path {
        Some(path) => format!("the input does not fit its type at `{path}`: {error}"),
        None => format!("the input does not fit its type: {error}"),
    })
}

/// The result of a task. A value that is no JSON (a map with keys that are no text, a non-finite number where
/// one is refused) is the handler's mistake, and would be the same the next time.
pub(super) fn output<T: Serialize>(value: &T) -> AttemptEnd {
    match serde_json::to_vec(value) {
        Ok(body) => AttemptEnd::Success(Output {
            content_type: CONTENT_TYPE.into(),
            body: body.into(),
        }),
        Err(error) => AttemptEnd::permanent(format!("the result is no JSON: {error}")),
    }
}

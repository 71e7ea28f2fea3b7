//! JSON that is passed on as it came: whether it is JSON, and not nested too deep.

use serde_json::value::RawValue;

use super::refusal::Refusal;

/// Deepest nesting of a JSON payload; Postgres and most readers give up not far beyond.
pub(crate) const MOST_DEPTH: usize = 128;

/// Whether a media type is JSON's: `application/json`, or one with the suffix `+json`, with or without
/// parameters.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence
            .to_ascii_lowercase()
            .strip_suffix("+json")
            .is_some_and(|kind| kind.contains('/'))
}

/// Whether bytes are JSON that may be a payload.
///
/// # Errors
/// They are not, and where.
pub(crate) fn check_json(text: &[u8]) -> Result<(), Refusal> {
    serde_json::from_slice::<&RawValue>(text)
        .map_err(|error| Refusal::bad("payload", format!("no JSON: {error}")))?;
    depth(text).map_err(|reason| Refusal::bad("payload", reason))
}

/// How deep JSON text is nested, which was checked to be JSON before.
pub(crate) fn depth(text: &[u8]) -> Result<(), String> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MOST_DEPTH {
                    return Err(format!("nested more than {MOST_DEPTH} levels deep"));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_media_type() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.a+json",
        ] {
            assert!(is_json(json), "{json}");
        }
        for other in ["text/plain", "application/jsonx", "+json", ""] {
            assert!(!is_json(other), "{other}");
        }
    }
}

//! The digest that names a file's content for `--once`: BLAKE3 of the decompressed bytes, so that
//! a file packed anew is still the same file. The dedup key of a line is `digest:line`.

use std::fmt::Write as _;
use std::io::{self, Read};

const CHUNK: usize = 256 * 1024;

/// Reads `content` to its end and returns its BLAKE3 in lower-case hexadecimal; `None` when
/// `stop` said so in between.
pub fn digest(mut content: impl Read, stop: impl Fn() -> bool) -> io::Result<Option<String>> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        if stop() {
            return Ok(None);
        }
        let count = content.read(&mut chunk)?;
        if count == 0 {
            return Ok(Some(hasher.finalize().to_hex().to_string()));
        }
        hasher.update(chunk.get(..count).unwrap_or_default());
    }
}

/// Writes the dedup key of `line` into `key`.
pub fn dedup_key(digest: &str, line: u64, key: &mut String) {
    key.clear();
    key.push_str(digest);
    // Writing to a String cannot fail.
    let _ = write!(key, ":{line}");
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use super::*;

    #[test]
    fn the_digest_is_blake3_of_the_whole_content() {
        let content = vec![7; 3 * CHUNK + 5];
        let expected = blake3::hash(&content).to_hex().to_string();
        assert_eq!(digest(&content[..], || false).unwrap(), Some(expected));
    }

    #[test]
    fn an_interrupt_ends_the_reading() {
        assert_eq!(digest(&b"x"[..], || true).unwrap(), None);
    }

    #[test]
    fn a_key_is_digest_and_line() {
        let mut key = "left over".to_owned();
        dedup_key("ab12", 7, &mut key);
        assert_eq!(key, "ab12:7");
    }
}

//! Bytes of strangers, printed so that nothing of them is lost and nothing of them reaches the terminal.

use serde_json::value::RawValue;

/// Bytes in the plainest form that holds them: JSON, text, or hexadecimal digits.
#[derive(Debug, serde::Serialize)]
pub struct Raw {
    /// How many.
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Raw {
    /// As JSON where they are JSON, else as hexadecimal digits.
    #[must_use]
    pub fn json_or_hex(bytes: &[u8]) -> Self {
        let json = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| RawValue::from_string(text.to_owned()).ok());
        let hex = json.is_none().then(|| hex(bytes));
        Self {
            bytes: bytes.len(),
            json,
            text: None,
            hex,
        }
    }

    /// As text where they are text, else as hexadecimal digits.
    #[must_use]
    pub fn text_or_hex(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
        let hex = text.is_none().then(|| hex(bytes));
        Self {
            bytes: bytes.len(),
            json: None,
            text,
            hex,
        }
    }

    /// For a line of a table: control characters are escaped.
    #[must_use]
    pub fn line(&self) -> String {
        match (&self.json, &self.text, &self.hex) {
            (Some(json), ..) => json.get().escape_debug().to_string().replace("\\\"", "\""),
            (_, Some(text), _) => text.escape_debug().to_string().replace("\\\"", "\""),
            (_, _, Some(hex)) => format!("{} bytes: {hex}", self.bytes),
            (None, None, None) => String::new(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('?'));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        assert_eq!(Raw::json_or_hex(b"{\"a\": 1}").line(), "{\"a\": 1}");
        assert_eq!(Raw::json_or_hex(&[0xc3, 0x01]).line(), "2 bytes: c301");
        assert_eq!(Raw::text_or_hex(b"a\x1b[31m").line(), "a\\u{1b}[31m");
        assert_eq!(Raw::text_or_hex(&[0xff]).line(), "1 bytes: ff");
    }
}

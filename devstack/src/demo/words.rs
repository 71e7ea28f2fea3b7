//! How counts and times are written for a reader.

use std::time::Duration;

/// A count with a comma between groups of three digits.
pub fn grouped(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = String::from(if count < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in whole milliseconds, or in seconds with one place once there are some.
pub fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// `a`, `a and b`, `a, b and c`.
pub fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_are_short_and_readable() {
        assert_eq!(
            [0, 999, 1_000, -39_244].map(grouped),
            ["0", "999", "1,000", "-39,244"]
        );
        assert_eq!(time(Duration::from_micros(12_700)), "12 ms");
        assert_eq!(time(Duration::from_millis(3_140)), "3.1 s");
        let items = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(listed(&items), "a, b and c");
    }
}

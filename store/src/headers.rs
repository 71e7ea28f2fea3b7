//! Headers of a Kafka record in one piece of memory: what a handler, a dead letter and a parked task keep.
//!
//! One allocation for all of them, in the order in which they came. The encoding is ours and is also that of
//! `parked_tasks.headers`: for each header the length of its name as u16, the name, the length of its value
//! as u32, the value, all big-endian. It is read back by this module alone.

use std::cell::Cell;
use std::sync::Arc;

/// Most bytes of headers that are kept of a record; what is beyond is left out, whole headers at a time.
pub const KEPT_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where headers are put together before their length is known. Taken while it is in use, so that an iterator
    /// that collects headers itself finds another one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Names and values, in order; a name may come more than once. A clone shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Arc<[u8]>);

impl Headers {
    /// Takes headers in their order, as long as they fit into 16 KiB.
    pub fn collect<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut bytes = SCRATCH.take();
        bytes.clear();
        Self::append(&mut bytes, headers);
        let collected = Self(bytes.as_slice().into());
        SCRATCH.set(bytes);
        collected
    }

    fn append<'a>(bytes: &mut Vec<u8>, headers: impl Iterator<Item = (&'a str, &'a [u8])>) {
        for (name, value) in headers {
            let (Ok(name_length), Ok(value_length)) =
                (u16::try_from(name.len()), u32::try_from(value.len()))
            else {
                continue;
            };
            if bytes.len() + 6 + name.len() + value.len() > KEPT_BYTES {
                break;
            }
            bytes.extend_from_slice(&name_length.to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&value_length.to_be_bytes());
            bytes.extend_from_slice(value);
        }
    }

    /// Takes bytes that [`Headers::as_bytes`] gave; bytes that are none of ours read as no headers from the
    /// first that does not fit.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (length, after) = after.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (value, after) = after.split_at_checked(length)?;
            rest = after;
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    /// The first value of a name.
    #[must_use]
    pub fn get(&self, wanted: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    }

    /// The first value of a name, when it is UTF-8.
    #[must_use]
    pub fn text(&self, wanted: &str) -> Option<&str> {
        std::str::from_utf8(self.get(wanted)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_in_order_and_repeated_names_stay() {
        let given: Vec<(&str, &[u8])> = vec![("a", b"1"), ("b", b""), ("a", &[0xff, 0])];
        let headers = Headers::collect(given.iter().copied());
        let again = Headers::from_bytes(headers.as_bytes());
        assert_eq!(again.iter().collect::<Vec<_>>(), given);
        assert_eq!(again.get("a"), Some(b"1".as_slice()));
        assert_eq!(again.get("c"), None);
    }

    #[test]
    fn headers_may_be_collected_while_others_are() {
        let outer = Headers::collect(["a", "b"].into_iter().map(|name| {
            let inner = Headers::collect([("inner", name.as_bytes())].into_iter());
            assert_eq!(inner.text("inner"), Some(name));
            (name, name.as_bytes())
        }));
        let names: Vec<&str> = outer.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let large = vec![b'x'; KEPT_BYTES];
        let headers = Headers::collect([("a", b"1".as_slice()), ("b", &large)].into_iter());
        assert_eq!(headers.iter().count(), 1);
    }

    #[test]
    fn strange_bytes_end_the_headers() {
        let headers = Headers::from_bytes(vec![0, 1, b'a', 0, 0, 0, 9, b'x']);
        assert_eq!(headers.iter().count(), 0);
    }
}

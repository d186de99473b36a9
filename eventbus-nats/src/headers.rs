//! Headers of a message, as the client read them or as they are stored.
//!
//! The client refuses a message whose headers it cannot read, and ends its connection with it. Such a record is fetched
//! by another road, with its header block as stored; here the block is read leniently. What the client can read, is read
//! the same here: a record must not change with the road that it came by.

use std::borrow::Cow;
use std::str::from_utf8;

use async_nats::StatusCode;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

/// The version at the begin of every header block.
const VERSION: &[u8] = b"NATS/1.0";

/// The headers of one message.
#[derive(Debug, Clone)]
pub(crate) enum Headers {
    /// As the client read them, in no order.
    Read(HeaderMap),
    /// The block as it is stored, from the version line on.
    Stored(Bytes),
}

/// The name and the value of a header.
pub(crate) type Header<'a> = (&'a str, Cow<'a, [u8]>);

impl Headers {
    /// Lists the headers. A line that is no header is left out.
    pub(crate) fn list(&self) -> Vec<Header<'_>> {
        match self {
            Self::Read(map) => {
                let all = map.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
                all.map(|(name, value)| (name.as_ref(), value.as_str().as_bytes().into())).collect()
            }
            Self::Stored(block) => parse(block).0,
        }
    }

    /// Returns the value of the first header of this name, if it is text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self {
            Self::Read(map) => map.get(name).map(|value| value.as_str().to_owned()),
            Self::Stored(block) => {
                let (_, value) = parse(block).0.into_iter().find(|(known, _)| *known == name)?;
                String::from_utf8(value.into_owned()).ok()
            }
        }
    }

    /// Whether the client would refuse a message with these headers.
    pub(crate) fn refused_by_client(&self) -> bool {
        match self {
            Self::Read(_) => false,
            Self::Stored(block) => parse(block).1,
        }
    }
}

/// Reads a header block. Also returns whether the client refuses it.
fn parse(block: &[u8]) -> (Vec<Header<'_>>, bool) {
    let mut refused = from_utf8(block).is_err();
    let mut lines = block.split_inclusive(|byte| *byte == b'\n').map(without_end).peekable();
    if let Some(line) = lines.next_if(|line| line.starts_with(VERSION)) {
        refused |= !is_status(&line[VERSION.len()..]);
    } else {
        refused = true;
    }
    let mut headers = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let header = line.iter().position(|byte| *byte == b':').map(|colon| (&line[..colon], &line[colon + 1..]));
        let named = header.and_then(|(name, value)| Some((from_utf8(name).ok()?, value)));
        let Some((name, value)) = named.filter(|(name, _)| name.parse::<HeaderName>().is_ok()) else {
            refused = true;
            continue;
        };
        let mut value = Cow::Borrowed(trimmed_start(value));
        while let Some(more) = lines.next_if(|line| trimmed_start(line).len() < line.len()) {
            value.to_mut().extend_from_slice(more);
        }
        let end = trimmed_end(&value).len();
        let value = match value {
            Cow::Borrowed(value) => Cow::Borrowed(&value[..end]),
            Cow::Owned(mut value) => {
                value.truncate(end);
                Cow::Owned(value)
            }
        };
        refused |= !from_utf8(&value).is_ok_and(|value| value.parse::<HeaderValue>().is_ok());
        headers.push((name, value));
    }
    (headers, refused)
}

fn without_end(line: &[u8]) -> &[u8] {
    let Some(line) = line.strip_suffix(b"\n") else { return line };
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether the rest of a version line is empty, or a status with or without a description.
fn is_status(rest: &[u8]) -> bool {
    let Ok(rest) = from_utf8(rest).map(str::trim) else { return false };
    let status = rest.split(' ').next().unwrap_or_default().trim();
    status.is_empty() || status.parse::<StatusCode>().is_ok()
}

/// Trims white space as the client does: that of Unicode, in text.
fn trimmed_start(value: &[u8]) -> &[u8] {
    from_utf8(value).map_or_else(|_| value.trim_ascii_start(), |text| text.trim_start().as_bytes())
}

fn trimmed_end(value: &[u8]) -> &[u8] {
    from_utf8(value).map_or_else(|_| value.trim_ascii_end(), |text| text.trim_end().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(block: &[u8]) -> Headers {
        Headers::Stored(Bytes::copy_from_slice(block))
    }

    fn listed(block: &[u8]) -> Vec<(String, Vec<u8>)> {
        stored(block).list().into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }

    #[test]
    fn headers_that_the_client_refuses_leave_the_others_readable() {
        for (odd, left) in [
            (&b"X-Customer: Caf\xe9\r\n"[..], Some(("X-Customer", &b"Caf\xe9"[..]))),
            (b"X Trace: 7\r\n", None),
            (b"Word\r\n", None),
            (b"X: a\rb\r\n", Some(("X", b"a\rb"))),
            (b"\xff\xfe: 1\r\n", None),
        ] {
            let block = [b"NATS/1.0\r\nA: 1\r\n", odd, b"B: 2\r\n\r\n"].concat();
            let mut expected = vec![("A", &b"1"[..])];
            expected.extend(left);
            expected.push(("B", b"2"));
            let expected: Vec<_> =
                expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            assert_eq!(listed(&block), expected);
            assert!(stored(&block).refused_by_client(), "{block:?}");
        }
        for odd in [&b"A: 1\r\n\r\n"[..], b"", b"NATS/1.0 abc\r\n\r\n", b"\0\r\n"] {
            assert!(stored(odd).refused_by_client(), "{odd:?}");
        }
    }

    #[test]
    fn headers_that_the_client_takes_are_read_as_it_reads_them() {
        let block = b"NATS/1.0 503 No Responders\r\nA:  1 \r\nB:\r\nA:2\r\n folded\r\n\r\n";
        assert!(!stored(block).refused_by_client());
        let read = [("A", "1"), ("B", ""), ("A", "2 folded")].map(|(name, value)| (name.to_owned(), value.into()));
        assert_eq!(listed(block), read);
        assert_eq!(stored(block).text("A").as_deref(), Some("1"));
        let mut map = HeaderMap::new();
        map.insert("A", "1");
        assert_eq!(Headers::Read(map).list(), [("A", Cow::Borrowed(&b"1"[..]))]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (name, value) in stored(&block).list() {
                prop_assert!(name.len() + value.len() < block.len());
            }
        }
    }
}

//! Headers as they are read: the bus's own names are borrowed, so that none is allocated for each record, and values
//! share a piece of memory.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Makes the table of attributes: each name alone, and behind the two prefixes of CloudEvents' bindings.
macro_rules! attributes {
    ($($name:literal),* $(,)?) => {
        &[$(($name, concat!("ce-", $name), concat!("ce_", $name))),*]
    };
}

/// The attributes that the bus writes. Any other name works as well, and costs an allocation.
const ATTRIBUTES: &[(&str, &str, &str)] = attributes![
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "partitionkey",
    "eventbuskeybase64",
    "sequence",
    "eventversion",
    "correlationid",
    "causationid",
    "tenant",
    "traceparent",
    "tracestate",
    "producer",
    "number",
    "datacontenttype",
];

/// The other headers that the bus writes.
const OTHERS: &[&str] = &["Nats-Msg-Id", "content-type", "traceparent", "tracestate"];

/// Returns a header's name, borrowed where the bus itself writes that name.
#[must_use]
pub fn header_name(name: &str) -> Cow<'static, str> {
    let known = match name.split_at_checked(3) {
        Some((prefix @ ("ce-" | "ce_"), attribute)) => known_attribute(prefix, attribute),
        _ => OTHERS.iter().copied().find(|known| *known == name),
    };
    known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

/// Copies the headers and the payload that a client lent into one piece of memory. It need not grow where there are
/// `count` headers and their values have at most `bytes` bytes together.
///
/// ```
/// use eventbus_core::wire::copied;
///
/// let (headers, payload) = copied(b"pay", 1, 1, [("ce_id", b"7".as_slice())].into_iter());
/// assert_eq!((headers, &payload[..]), (vec![("ce_id".into(), b"7".as_slice().into())], b"pay".as_slice()));
/// ```
pub fn copied<'a>(
    payload: &[u8],
    count: usize,
    bytes: usize,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> (Vec<(Cow<'static, str>, Bytes)>, Bytes) {
    let mut joined = BytesMut::with_capacity(payload.len() + bytes);
    let mut copy = |value: &[u8]| {
        joined.extend_from_slice(value);
        joined.split().freeze()
    };
    let payload = copy(payload);
    let mut copies = Vec::with_capacity(count);
    copies.extend(headers.map(|(name, value)| (header_name(name), copy(value))));
    (copies, payload)
}

pub(super) fn attribute_header(prefix: &str, attribute: &str) -> Cow<'static, str> {
    let known = known_attribute(prefix, attribute);
    known.map_or_else(|| Cow::Owned(format!("{prefix}{attribute}")), Cow::Borrowed)
}

fn known_attribute(prefix: &str, attribute: &str) -> Option<&'static str> {
    let (_, dashed, underscored) = ATTRIBUTES.iter().find(|(known, ..)| *known == attribute)?;
    match prefix {
        "ce-" => Some(dashed),
        "ce_" => Some(underscored),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_whether_it_is_known_or_not() {
        for name in ["ce-id", "ce_id", "CE-ID", "", "x", "ce-", "Nats-Msg-Id", "nats-msg-id"] {
            assert_eq!(header_name(name), name);
        }
        assert!(matches!(header_name("ce_partitionkey"), Cow::Borrowed(_)));
        for (prefix, attribute) in [("ce-", "id"), ("ce_", "id"), ("ce-", "mine"), ("", "ce-id"), ("x", "id")] {
            assert_eq!(attribute_header(prefix, attribute), format!("{prefix}{attribute}"));
        }
    }
}

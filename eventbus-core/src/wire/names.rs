//! The names of the bus's own headers, so that none is allocated for each record.

use std::borrow::Cow;

/// Makes the table of attributes: each alone, and behind the two prefixes of CloudEvents' bindings.
macro_rules! attributes {
    ($($name:literal),* $(,)?) => {
        &[$(($name, concat!("ce-", $name), concat!("ce_", $name))),*]
    };
}

/// The attributes that the bus writes. Any other name is as good, and costs an allocation.
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

/// What else is written.
const OTHERS: &[&str] = &["Nats-Msg-Id", "content-type", "traceparent", "tracestate"];

/// A header's name, borrowed where it is one that the bus itself writes.
#[must_use]
pub fn header_name(name: &str) -> Cow<'static, str> {
    let known = match name.split_at_checked(3) {
        Some((prefix @ ("ce-" | "ce_"), attribute)) => known_attribute(prefix, attribute),
        _ => OTHERS.iter().copied().find(|known| *known == name),
    };
    known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

/// The header of an attribute.
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

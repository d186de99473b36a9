//! The names of the bus's own headers, so that none is allocated for each record.

use std::borrow::Cow;

/// Attributes behind the two prefixes of CloudEvents' bindings, and what else is written. Any other name is as good, and
/// costs an allocation.
const NAMES: &[&str] = &[
    "ce-specversion",
    "ce-id",
    "ce-source",
    "ce-type",
    "ce-time",
    "ce-subject",
    "ce-partitionkey",
    "ce-eventbuskeybase64",
    "ce-sequence",
    "ce-eventversion",
    "ce-correlationid",
    "ce-causationid",
    "ce-tenant",
    "ce-traceparent",
    "ce-tracestate",
    "ce-producer",
    "ce-number",
    "ce-datacontenttype",
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_subject",
    "ce_partitionkey",
    "ce_eventbuskeybase64",
    "ce_sequence",
    "ce_eventversion",
    "ce_correlationid",
    "ce_causationid",
    "ce_tenant",
    "ce_traceparent",
    "ce_tracestate",
    "ce_producer",
    "ce_number",
    "ce_datacontenttype",
    "Nats-Msg-Id",
    "content-type",
    "traceparent",
    "tracestate",
];

/// A header's name, borrowed where it is one that the bus itself writes.
#[must_use]
pub fn header_name(name: &str) -> Cow<'static, str> {
    let known = NAMES.iter().copied().find(|known| *known == name);
    known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

/// The header of an attribute.
pub(super) fn attribute_header(prefix: &str, attribute: &str) -> Cow<'static, str> {
    let known = NAMES.iter().copied().find(|known| known.strip_prefix(prefix).is_some_and(|name| name == attribute));
    known.map_or_else(|| Cow::Owned(format!("{prefix}{attribute}")), Cow::Borrowed)
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

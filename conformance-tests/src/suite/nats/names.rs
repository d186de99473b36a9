//! The names on the server, built anew as the library's documentation describes them.

use std::fmt::Write;

use sha2::{Digest, Sha256};

fn escape(name: &str) -> String {
    name.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '_' => escaped.push_str("__"),
            '.' => escaped.push_str("_d"),
            plain => escaped.push(plain),
        }
        escaped
    })
}

/// A name as one token; a long name is cut and carries its digest.
fn token(name: &str) -> String {
    let escaped = escape(name);
    if escaped.len() <= 96 {
        return escaped;
    }
    let mut cut = escape(&name[..48.min(name.len())]);
    cut.push_str("_h");
    for byte in &Sha256::digest(name.as_bytes())[..16] {
        let _ = write!(cut, "{byte:02x}");
    }
    cut
}

/// Prefix of the subjects of a topic's partitions.
pub(super) fn subjects(prefix: &str, topic: &str) -> String {
    format!("{}.{}.", escape(prefix), token(topic))
}

/// The subject of a partition.
pub(super) fn subject(prefix: &str, topic: &str, partition: u32) -> String {
    format!("{}p{partition:02}", subjects(prefix, topic))
}

/// The partition that a subject names.
pub(super) fn partition_of(subject: &str) -> Option<u32> {
    subject.rsplit_once(".p")?.1.parse().ok()
}

/// The stream of a topic.
pub(super) fn stream(prefix: &str, topic: &str) -> String {
    format!("{}_T_{}", escape(prefix), token(topic))
}

/// The stream of the bucket that holds the groups' records on a topic.
pub(super) fn bucket(prefix: &str, topic: &str) -> String {
    format!("KV_{}_G_{}", escape(prefix), token(topic))
}

/// Prefix of the subjects of a group's records on a topic.
pub(super) fn records(prefix: &str, topic: &str, group: &str) -> String {
    format!("$KV.{}_G_{}.{}.p.", escape(prefix), token(topic), token(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_names_are_others() {
        assert_eq!(stream("eventbus", "shop.orders"), "eventbus_T_shop_dorders");
        assert_eq!(subject("eventbus", "shop.orders", 3), "eventbus.shop_dorders.p03");
        assert_eq!(partition_of("eventbus.shop_dorders.p113"), Some(113));
        assert_eq!(bucket("eventbus", "shop.orders"), "KV_eventbus_G_shop_dorders");
        assert_eq!(records("eventbus", "shop.orders", "billing.eu"), "$KV.eventbus_G_shop_dorders.billing_deu.p.");
    }
}

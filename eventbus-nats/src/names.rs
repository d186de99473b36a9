//! Names on the server: one encoding for streams, subjects, buckets, keys and consumers.
//!
//! Invariants: different topics (and groups) get different names (`a.b` and `a_b` are two topics), and every name fits
//! the server's limits (255 bytes for streams and consumers). The encoding is part of what is stored: see the vectors.

use std::fmt::Write;

use eventbus_core::lease::Key;
use eventbus_core::{Group, Topic};
use sha2::{Digest, Sha256};

/// The most bytes of an encoded name.
const MAX: usize = 96;
/// How much of a longer name stays readable.
const SHOWN: usize = 48;

/// A name as one token of subjects and of stream names: `_` becomes `__`, `.` becomes `_d`; a name that gets too long is
/// cut, and `_h` with 128 bits of its digest put behind it. No name holds `_h`, so none can look like a cut one.
pub(crate) fn token(name: &str) -> String {
    let encoded = escape(name);
    if encoded.len() <= MAX {
        return encoded;
    }
    let mut cut = escape(&name[..SHOWN.min(name.len())]);
    cut.push_str("_h");
    for byte in &Sha256::digest(name.as_bytes())[..16] {
        let _ = write!(cut, "{byte:02x}");
    }
    cut
}

fn escape(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        match c {
            '_' => encoded.push_str("__"),
            '.' => encoded.push_str("_d"),
            plain => encoded.push(plain),
        }
    }
    encoded
}

/// The names of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) stream: String,
    /// What the subjects of the partitions begin with, with its dot.
    subjects: String,
    /// The stream of the bucket that holds the groups' records.
    pub(crate) bucket: String,
    /// What the subjects of the bucket's keys begin with, with its dot.
    keys: String,
}

/// What all streams of topics begin with.
pub(crate) fn streams(prefix: &str) -> String {
    format!("{}_T_", escape(prefix))
}

/// What all streams of groups' records begin with.
pub(crate) fn buckets(prefix: &str) -> String {
    format!("KV_{}_G_", escape(prefix))
}

impl Names {
    pub(crate) fn new(prefix: &str, topic: &Topic) -> Self {
        let (space, topic) = (escape(prefix), token(topic.as_str()));
        Self {
            stream: format!("{space}_T_{topic}"),
            subjects: format!("{space}.{topic}."),
            bucket: format!("KV_{space}_G_{topic}"),
            keys: format!("$KV.{space}_G_{topic}."),
        }
    }

    /// The subjects of all partitions.
    pub(crate) fn all(&self) -> String {
        format!("{}*", self.subjects)
    }

    /// The subject of one partition.
    pub(crate) fn partition(&self, partition: u32) -> String {
        format!("{}p{partition:02}", self.subjects)
    }

    /// The subjects of all records.
    pub(crate) fn records(&self) -> String {
        format!("{}>", self.keys)
    }

    /// The subjects of all that a group has.
    pub(crate) fn group(&self, group: &Group) -> String {
        format!("{}{}.>", self.keys, token(group.as_str()))
    }

    /// The subject of a partition's record.
    pub(crate) fn record(&self, group: &Group, partition: u32) -> String {
        format!("{}{}.p.{partition}", self.keys, token(group.as_str()))
    }

    /// The subject of a member's heartbeat.
    pub(crate) fn member(&self, group: &Group, member: &str) -> String {
        format!("{}{}.m.{}", self.keys, token(group.as_str()), token(&plain(member)))
    }

    /// What a subject in the bucket is about.
    pub(crate) fn parse(&self, subject: &str) -> Option<Key> {
        let mut tokens = subject.strip_prefix(&self.keys)?.split('.').skip(1);
        let (kind, last) = (tokens.next()?, tokens.next()?);
        match (kind, tokens.next()) {
            ("p", None) => Some(Key::Partition(last.parse().ok()?)),
            ("m", None) => Some(Key::Member),
            _ => None,
        }
    }
}

/// Members' names are free text; what no token may hold becomes a dot, which is escaped. Two members' names differ in
/// their random part, which is plain.
fn plain(member: &str) -> String {
    member.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(topic: &str) -> Names {
        Names::new("eventbus", &topic.parse().unwrap())
    }

    /// What is stored goes by these names: another encoding would not find it.
    #[test]
    fn vectors_never_change() {
        for (name, encoded) in [
            ("orders", "orders"),
            ("a.b", "a_db"),
            ("a_b", "a__b"),
            ("a_db", "a__db"),
            ("a-1", "a-1"),
            (".", "_d"),
            ("__", "____"),
        ] {
            assert_eq!(token(name), encoded);
        }
        let long = "x".repeat(200);
        assert_eq!(token(&long), format!("{}_h{}", "x".repeat(48), "aa20c23e3201834050679e1d88941b9a"));
        let orders = names("shop.orders");
        assert_eq!(orders.stream, "eventbus_T_shop_dorders");
        assert_eq!(orders.partition(3), "eventbus.shop_dorders.p03");
        assert_eq!(orders.bucket, "KV_eventbus_G_shop_dorders");
        let group: Group = "billing.eu".parse().unwrap();
        assert_eq!(orders.record(&group, 12), "$KV.eventbus_G_shop_dorders.billing_deu.p.12");
        assert_eq!(orders.member(&group, "m 1-0f"), "$KV.eventbus_G_shop_dorders.billing_deu.m.m_d1-0f");
    }

    #[test]
    fn a_key_of_the_bucket_is_read_back() {
        let (names, group): (_, Group) = (names("t"), "g".parse().unwrap());
        assert_eq!(names.parse(&names.record(&group, 7)), Some(Key::Partition(7)));
        assert_eq!(names.parse(&names.member(&group, "m")), Some(Key::Member));
        assert_eq!(names.parse("$KV.other.g.p.7"), None);
    }

    proptest::proptest! {
        #[test]
        fn two_names_never_share_a_token(a in "[A-Za-z0-9._-]{1,200}", b in "[A-Za-z0-9._-]{1,200}") {
            proptest::prop_assert_eq!(a == b, token(&a) == token(&b));
            proptest::prop_assert!(token(&a).len() <= 130, "{}", token(&a).len());
            proptest::prop_assert!(token(&a).bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-'));
        }

        #[test]
        fn close_names_never_share_a_token(a in "[a._h_d]{1,6}", b in "[a._h_d]{1,6}") {
            proptest::prop_assert_eq!(a == b, token(&a) == token(&b));
        }
    }
}

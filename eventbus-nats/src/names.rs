//! Names on the server: streams, subjects, buckets and keys, all in one encoding (`crate::tokens`).
//!
//! Invariants: different topics (and groups) get different names, and every name fits the server's limits (255 bytes
//! for streams). Names are part of the stored data: see the vectors.

use crate::tokens::{encode_name, escape_name};
use eventbus_core::toolkit::lease::StoredKey;
use eventbus_core::{Group, Topic};

/// The names of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) stream: String,
    /// Prefix of the partitions' subjects, with its dot.
    subjects: String,
    /// The stream of the bucket that holds the groups' records.
    pub(crate) bucket: String,
    /// Prefix of the subjects of the bucket's keys, with its dot.
    keys: String,
}

/// Prefix of all streams of topics.
pub(crate) fn streams(prefix: &str) -> String {
    format!("{}_T_", escape_name(prefix))
}

/// Prefix of all streams of groups' records.
pub(crate) fn buckets(prefix: &str) -> String {
    format!("KV_{}_G_", escape_name(prefix))
}

impl Names {
    pub(crate) fn new(prefix: &str, topic: &Topic) -> Self {
        let (space, topic) = (escape_name(prefix), encode_name(topic.as_str()));
        Self {
            stream: format!("{space}_T_{topic}"),
            subjects: format!("{space}.{topic}."),
            bucket: format!("KV_{space}_G_{topic}"),
            keys: format!("$KV.{space}_G_{topic}."),
        }
    }

    /// The subjects of all partitions, as earlier versions gave them to the stream: it took others, too.
    pub(crate) fn any(&self) -> String {
        format!("{}*", self.subjects)
    }

    /// The subjects of so many partitions.
    pub(crate) fn partitions(&self, count: u32) -> impl Iterator<Item = String> {
        (0..count).map(|partition| self.partition(partition))
    }

    /// The subject of one partition.
    pub(crate) fn partition(&self, partition: u32) -> String {
        format!("{}p{partition:02}", self.subjects)
    }

    /// The subjects of all records.
    pub(crate) fn records(&self) -> String {
        format!("{}>", self.keys)
    }

    /// The subjects of all keys of a group.
    pub(crate) fn group(&self, group: &Group) -> String {
        format!("{}{}.>", self.keys, encode_name(group.as_str()))
    }

    /// The subject of a partition's record.
    pub(crate) fn record(&self, group: &Group, partition: u32) -> String {
        format!("{}{}.p.{partition}", self.keys, encode_name(group.as_str()))
    }

    /// The subject of a member's heartbeat.
    pub(crate) fn member(&self, group: &Group, member: &str) -> String {
        format!("{}{}.m.{}", self.keys, encode_name(group.as_str()), encode_name(&plain(member)))
    }

    /// Reads a subject of the bucket; `None` for a foreign one.
    pub(crate) fn parse(&self, subject: &str) -> Option<StoredKey> {
        let mut tokens = subject.strip_prefix(&self.keys)?.split('.').skip(1);
        let (kind, last) = (tokens.next()?, tokens.next()?);
        match (kind, tokens.next()) {
            ("p", None) => Some(StoredKey::Partition(last.parse().ok()?)),
            ("m", None) => Some(StoredKey::Member),
            _ => None,
        }
    }
}

/// Makes a token of a member's name, which is free text: other characters become dots, which are then escaped. Two
/// members' names differ in their random part, which is plain.
fn plain(member: &str) -> String {
    member.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(topic: &str) -> Names {
        Names::new("eventbus", &topic.parse().unwrap())
    }

    /// Stored data goes by these names: another encoding would not find it.
    #[test]
    fn vectors_never_change() {
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
        assert_eq!(names.parse(&names.record(&group, 7)), Some(StoredKey::Partition(7)));
        assert_eq!(names.parse(&names.member(&group, "m")), Some(StoredKey::Member));
        assert_eq!(names.parse("$KV.other.g.p.7"), None);
    }
}

//! Labels of a topic: names and values in the metadata of its stream. They tell a topic from any other stream with its
//! name, and hold the settings that the server does not know.
//!
//! Invariant: a stream that does not say how its partitions are computed is nobody's topic: a key would be in two of
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use eventbus_core::{Error, ErrorKind, Result, Topic, TopicSpec};

/// The hash by which partitions are computed.
const HASH: &str = "murmur2";

/// The label of a topic whose groups have had a bucket.
const BUCKET: &str = "eventbus-groups";

/// Names and values kept with a topic, `eventbus-topic` and others; written as a map of texts, foreign ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Makes the labels of a new topic, with a random incarnation that no other has.
    pub(crate) fn new(spec: &TopicSpec) -> Self {
        let mut labels = Self::default();
        labels.set("eventbus-topic", spec.topic.clone());
        labels.set("eventbus-partitions", spec.partitions.to_string());
        labels.set("eventbus-hash", HASH.to_owned());
        labels.set("eventbus-incarnation", format!("{:016x}", rand::random::<u64>()));
        labels.update(spec);
        labels
    }

    /// Notes the settings that can be changed and that no server knows.
    pub(crate) fn update(&mut self, spec: &TopicSpec) {
        if let Ok(serde_json::Value::String(word)) = serde_json::to_value(spec.after_refusal) {
            self.set("eventbus-after-refusal", word);
        }
        self.set("eventbus-strict-partitions", spec.strict_partitions.to_string());
    }

    fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The topic's name; `None` where the stream is no topic.
    pub(crate) fn topic(&self) -> Option<&str> {
        self.get("eventbus-topic")
    }

    /// The incarnation, which tells topics of one name apart: another one after a topic was deleted and created again.
    /// Empty where there is none.
    pub(crate) fn incarnation(&self) -> &str {
        self.get("eventbus-incarnation").unwrap_or_default()
    }

    /// Whether a bucket was made for the topic's groups.
    pub(crate) fn has_bucket(&self) -> bool {
        self.get(BUCKET).is_some()
    }

    /// Notes that a bucket was made for the topic's groups: one that is missing later was removed.
    pub(crate) fn note_bucket(&mut self) {
        self.set(BUCKET, "made".to_owned());
    }

    /// The topic's settings as far as labels hold them: name, partitions, and those that no server knows; the rest at
    /// its defaults.
    ///
    /// # Errors
    /// `TopicMismatch`, naming the setting, where this is another topic or none.
    pub(crate) fn spec(&self, topic: &Topic) -> Result<TopicSpec> {
        let foreign =
            |what: &str| Error::new(ErrorKind::TopicMismatch, format!("this is no topic of this library: {what}"));
        if self.get("eventbus-hash") != Some(HASH) {
            return Err(foreign("hash: expected murmur2 in its metadata").with("setting", "hash"));
        }
        if self.topic() != Some(topic.as_str()) {
            return Err(foreign("its metadata name another topic").with("setting", "topic"));
        }
        let mut spec = TopicSpec::new(topic.as_str());
        // A count beyond the most would be taken at its word, and a log listed for each.
        let partitions = self.get("eventbus-partitions").and_then(|count| count.parse().ok());
        let partitions = partitions.filter(|count| (1..=TopicSpec::MAX_PARTITIONS).contains(count));
        spec.partitions = partitions.ok_or_else(|| foreign("it has no count of partitions"))?;
        let word = self.get("eventbus-after-refusal").map(|word| serde_json::Value::String(word.to_owned()));
        spec.after_refusal = word.and_then(|word| serde_json::from_value(word).ok()).unwrap_or_default();
        spec.strict_partitions = self.get("eventbus-strict-partitions") == Some("true");
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventbus_core::AfterRefusal;

    fn asked() -> TopicSpec {
        TopicSpec::new("t").partitions(3).after_refusal(AfterRefusal::SealUntilResumed).strict_partitions(true)
    }

    #[test]
    fn what_is_noted_is_read_back_and_what_is_foreign_stays() {
        let topic: Topic = "t".parse().unwrap();
        let mut labels = Labels::new(&asked());
        assert_eq!(labels.spec(&topic).unwrap(), asked());
        labels.set("other", "kept".into());
        assert!(!labels.has_bucket());
        labels.note_bucket();
        assert!(labels.has_bucket());
        let (incarnation, changed) = (labels.incarnation().to_owned(), TopicSpec::new("t").partitions(5));
        labels.update(&changed);
        let read = labels.spec(&topic).unwrap();
        assert_eq!((read.partitions, read.after_refusal, read.strict_partitions), (3, AfterRefusal::SealKey, false));
        assert_eq!((labels.get("other"), labels.incarnation()), (Some("kept"), &*incarnation));
        assert_ne!(Labels::new(&asked()).incarnation(), incarnation);
    }

    /// Stored topics carry these words: with others, none would be found again.
    #[test]
    fn the_words_never_change() {
        let mut labels = Labels::new(&asked());
        labels.set("eventbus-incarnation", "1".into());
        let written = serde_json::to_string(&labels).unwrap();
        let expected = r#"{"eventbus-after-refusal":"seal-until-resumed","eventbus-hash":"murmur2","eventbus-incarnation":"1","eventbus-partitions":"3","eventbus-strict-partitions":"true","eventbus-topic":"t"}"#;
        assert_eq!(written, expected);
        assert_eq!(serde_json::from_str::<Labels>(expected).unwrap(), labels);
    }

    #[test]
    fn what_is_no_topic_or_another_one_is_told_by_the_setting() {
        let topic: Topic = "t".parse().unwrap();
        for (name, value, says) in [
            ("eventbus-hash", "crc32", "setting=hash"),
            ("eventbus-topic", "u", "setting=topic"),
            ("eventbus-partitions", "many", "no count of partitions"),
            ("eventbus-partitions", "0", "no count of partitions"),
            ("eventbus-partitions", "4294967295", "no count of partitions"),
        ] {
            let mut labels = Labels::new(&asked());
            labels.set(name, value.into());
            let error = labels.spec(&topic).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TopicMismatch);
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(Labels::default().spec(&topic).is_err());
        assert_eq!(Labels::default().topic(), None);
    }
}

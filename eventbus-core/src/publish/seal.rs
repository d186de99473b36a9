//! Sealed keys: keys that take no publish after a refusal (P2).
//!
//! A refusal leaves a [`RefusalRoot`]: the refused publish, and whether its caller has seen the refusal. The root seals
//! the publish's key.
//!
//! # Invariants
//!
//! - **A sealed key takes nothing** until every root that sealed it was seen (polling returned an error that names it),
//!   or the key was resumed. A key may have two roots: one publish is refused at the call while another one, queued
//!   before it, is refused by the broker.
//! - **Seen is asked at the publish.** A publish checks at its call whether the refusal was seen. Seeing a refusal
//!   later unseals no publish that was called before.
//! - **Bounded.** A topic remembers at most `limit` sealed keys. Past them the topic is sealed as a whole, by a root of
//!   its own. Only the error of a publish *refused by that seal* marks this root as seen. The root stands for all keys
//!   that the topic could not remember, so each further one puts a fresh root in its place.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{AfterRefusal, Error, ErrorKind, Key, Receipt, Refusal, Topic};
use crate::runtime::Mutex;
use crate::runtime::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A refused publish, by which other publishes fail.
#[derive(Debug)]
pub(crate) struct RefusalRoot {
    refusal: Refusal,
    seen: AtomicBool,
}

impl RefusalRoot {
    pub(crate) fn new(refusal: Refusal) -> Arc<Self> {
        Arc::new(Self { refusal, seen: AtomicBool::new(false) })
    }

    /// Marks the refusal as seen: an error that names this publish was returned to a caller.
    pub(crate) fn see(&self) {
        self.seen.store(true, Ordering::Release);
    }

    fn is_seen(&self) -> bool {
        self.seen.load(Ordering::Acquire)
    }

    pub(crate) fn refusal(&self) -> &Refusal {
        &self.refusal
    }
}

/// The failure of a publish: its error, and the refusal that the caller has seen once it was given that error.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) root: Option<Arc<RefusalRoot>>,
}

impl Failure {
    /// A failure that seals nothing.
    pub(crate) fn plain(error: Error) -> Self {
        Self { error, root: None }
    }

    /// Makes the failure of the refused publish itself: its error names it.
    pub(crate) fn refused(error: Error, refusal: Refusal) -> Self {
        Self { error: error.naming(refusal.clone()), root: Some(RefusalRoot::new(refusal)) }
    }

    /// Makes the failure of a publish that was queued behind a refused one.
    pub(crate) fn cascaded(topic: &Topic, root: &Arc<RefusalRoot>) -> Self {
        let message = "an earlier envelope of this key was refused, so this one was not stored";
        let error = Error::new(ErrorKind::Cascaded, message).with("topic", topic).naming(root.refusal.clone());
        Self { error, root: Some(Arc::clone(root)) }
    }

    fn sealed(topic: &Topic, key: &Key, root: Arc<RefusalRoot>) -> Self {
        let message = "the key is sealed until this refusal was seen or the key is resumed";
        let error = Error::new(ErrorKind::KeySealed, message).with("topic", topic).with("key", key);
        Self { error: error.naming(root.refusal.clone()), root: Some(root) }
    }

    fn topic_sealed(topic: &Topic, limit: usize, root: Arc<RefusalRoot>) -> Self {
        let message =
            format!("more than {limit} keys are sealed, so the topic is until it is resumed or this was seen");
        let error = Error::new(ErrorKind::KeySealed, message).with("topic", topic);
        Self { error: error.naming(root.refusal.clone()), root: Some(root) }
    }

    /// Returns the error for the caller: the refusal that it names counts as seen from now on.
    pub(crate) fn into_seen(self) -> Error {
        if let Some(root) = self.root {
            root.see();
        }
        self.error
    }
}

/// The outcome of a publish.
pub(crate) type PublishOutcome = Result<Receipt, Failure>;

/// The effect of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// The key is sealed now.
    Key,
    /// The topic is sealed now.
    Topic,
    /// Nothing new is sealed: the key or the topic was already, or the topic's policy does not seal.
    Nothing,
}

/// The state of seals that a topic's shards share: how many keys are sealed, and the topic's own seal.
#[derive(Debug)]
pub(crate) struct TopicSeal {
    limit: usize,
    keys: AtomicUsize,
    /// Whether `root` is set; read without its lock.
    shut: AtomicBool,
    root: Mutex<Option<Arc<RefusalRoot>>>,
}

impl TopicSeal {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, keys: AtomicUsize::new(0), shut: AtomicBool::new(false), root: Mutex::new(None) }
    }

    /// Removes the topic's own seal; the keys that are remembered stay sealed.
    pub(crate) fn resume(&self) {
        *self.root.lock() = None;
        self.shut.store(false, Ordering::Release);
    }

    fn check(&self, topic: &Topic, policy: AfterRefusal) -> Option<Failure> {
        if !self.shut.load(Ordering::Acquire) {
            return None;
        }
        let mut held = self.root.lock();
        let root = held.as_ref()?;
        if opens(policy, root) {
            *held = None;
            self.shut.store(false, Ordering::Release);
            return None;
        }
        Some(Failure::topic_sealed(topic, self.limit, Arc::clone(root)))
    }

    fn shut(&self, refusal: &Refusal) -> Sealed {
        let before = self.root.lock().replace(RefusalRoot::new(refusal.clone()));
        self.shut.store(true, Ordering::Release);
        if before.is_none() { Sealed::Topic } else { Sealed::Nothing }
    }

    /// Counts one more sealed key. Returns false, and counts nothing, where the limit is reached.
    fn count(&self) -> bool {
        let more = |keys: usize| (keys < self.limit).then_some(keys + 1);
        self.keys.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }
}

/// Whether a seal no longer holds.
fn opens(policy: AfterRefusal, root: &RefusalRoot) -> bool {
    match policy {
        AfterRefusal::SealKey => root.is_seen(),
        AfterRefusal::SealUntilResumed => false,
        AfterRefusal::Continue => true,
    }
}

/// The sealed keys of one shard of a topic.
#[derive(Debug, Default)]
pub(crate) struct Seals(HashMap<Key, Vec<Arc<RefusalRoot>>>);

impl Seals {
    /// Returns the failure of a publish of this key, if it must fail now. Removes seals that no longer hold.
    pub(crate) fn check(
        &mut self,
        topic: &Topic,
        whole: &TopicSeal,
        policy: AfterRefusal,
        key: &Key,
    ) -> Option<Failure> {
        if let Some(failure) = whole.check(topic, policy) {
            return Some(failure);
        }
        if self.0.is_empty() {
            return None;
        }
        let roots = self.0.get_mut(key)?;
        roots.retain(|root| !opens(policy, root));
        if let Some(root) = roots.first() {
            return Some(Failure::sealed(topic, key, Arc::clone(root)));
        }
        self.resume(whole, key);
        None
    }

    /// Seals a key by a refusal, or the topic where the limit of sealed keys is reached.
    pub(crate) fn seal(
        &mut self,
        whole: &TopicSeal,
        policy: AfterRefusal,
        key: &Key,
        root: &Arc<RefusalRoot>,
    ) -> Sealed {
        if policy == AfterRefusal::Continue {
            return Sealed::Nothing;
        }
        if let Some(roots) = self.0.get_mut(key) {
            roots.push(Arc::clone(root));
            return Sealed::Nothing;
        }
        if !whole.count() {
            return whole.shut(root.refusal());
        }
        self.0.insert(key.clone(), vec![Arc::clone(root)]);
        Sealed::Key
    }

    pub(crate) fn resume(&mut self, whole: &TopicSeal, key: &Key) {
        if self.0.remove(key).is_some() {
            whole.keys.fetch_sub(1, Ordering::AcqRel);
        }
        if self.0.is_empty() {
            self.0 = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ProducerId, Stamp};

    fn root(number: u64) -> Arc<RefusalRoot> {
        RefusalRoot::new(Refusal::new(Stamp::new(ProducerId::new(1), number), number.to_string()))
    }

    fn world(limit: usize) -> (Topic, TopicSeal, Seals, Key, Key) {
        let key = |name| Key::try_from(name).unwrap();
        ("t".parse().unwrap(), TopicSeal::new(limit), Seals::default(), key("a"), key("b"))
    }

    #[test]
    fn a_key_refused_twice_is_not_unsealed_by_seeing_one() {
        let (topic, whole, mut seals, a, b) = world(9);
        let (first, second) = (root(1), root(2));
        let policy = AfterRefusal::SealKey;
        assert_eq!(seals.seal(&whole, policy, &a, &first), Sealed::Key);
        assert_eq!(seals.seal(&whole, policy, &a, &second), Sealed::Nothing);
        second.see();
        let failure = seals.check(&topic, &whole, policy, &a).unwrap();
        assert_eq!(failure.error.refusal(), Some(first.refusal()));
        assert!(seals.check(&topic, &whole, policy, &b).is_none());
        let _ = failure.into_seen();
        assert!(seals.check(&topic, &whole, policy, &a).is_none());
        assert_eq!(whole.keys.load(Ordering::Acquire), 0);
    }

    #[test]
    fn seeing_does_not_unseal_what_waits_to_be_resumed() {
        let (topic, whole, mut seals, a, _) = world(9);
        let policy = AfterRefusal::SealUntilResumed;
        seals.seal(&whole, policy, &a, &root(1));
        let _ = seals.check(&topic, &whole, policy, &a).unwrap().into_seen();
        assert!(seals.check(&topic, &whole, policy, &a).is_some());
        seals.resume(&whole, &a);
        assert!(seals.check(&topic, &whole, policy, &a).is_none());
    }

    #[test]
    fn past_the_limit_the_topic_is_sealed_until_its_own_error_was_seen() {
        let (topic, whole, mut seals, a, b) = world(1);
        let policy = AfterRefusal::SealKey;
        seals.seal(&whole, policy, &a, &root(1));
        let overflow = root(2);
        assert_eq!(seals.seal(&whole, policy, &b, &overflow), Sealed::Topic);
        overflow.see();
        let other = Key::try_from("other").unwrap();
        let failure = seals.check(&topic, &whole, policy, &other).unwrap();
        assert_eq!(seals.seal(&whole, policy, &b, &root(3)), Sealed::Nothing);
        let _ = failure.into_seen();
        let again = seals.check(&topic, &whole, policy, &other);
        assert!(again.is_some(), "a refusal after that error is not seen with it");
        let _ = again.unwrap().into_seen();
        assert!(seals.check(&topic, &whole, policy, &other).is_none());
        assert!(seals.check(&topic, &whole, policy, &a).is_some(), "what is remembered stays sealed");
    }
}

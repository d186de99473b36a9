//! Events, of which a history is made: one [`Event`] for everything that a rule needs to know.
//!
//! The types know nothing of the bus: a history may have been written by another process, in
//! another language, about another implementation. Names are shared strings, keys shared bytes,
//! so recording an event allocates nothing that its writer does not already hold.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name (topic, group, member, fault): shared, so that clones cost a counter.
pub type Name = Arc<str>;

/// The key of an envelope, or none. Compared as bytes; nothing is normalised.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Option<Arc<[u8]>>);

impl Key {
    /// No key: related to nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The key with these bytes. Zero bytes mean no key.
    #[must_use]
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        Self((!bytes.is_empty()).then(|| Arc::from(bytes)))
    }

    /// The bytes, or nothing.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes() {
            None => f.write_str("(no key)"),
            Some(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key in NDJSON: null, text, or (where the bytes are no text) the numbers of its bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenKey<'a> {
    None,
    #[serde(borrow = "'a")]
    Text(std::borrow::Cow<'a, str>),
    Bytes(Vec<u8>),
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.bytes() {
            None => WrittenKey::None,
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => WrittenKey::Text(text.into()),
                Err(_) => WrittenKey::Bytes(bytes.to_vec()),
            },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match WrittenKey::deserialize(deserializer)? {
            WrittenKey::None => Self::none(),
            WrittenKey::Text(text) => Self::new(text.as_bytes()),
            WrittenKey::Bytes(bytes) => Self::new(bytes),
        })
    }
}

/// One record of a history.
///
/// Its place in the history is the total order that the rules compare; `at` places it among the
/// records of other processes and is what a reader looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds of the host's monotonic clock (or of the simulation's).
    pub at: u64,
    /// The process that wrote it. A process that is started again takes another number.
    pub process: u32,
    /// The kind of event, with its data.
    #[serde(flatten)]
    pub kind: Kind,
}

/// The outcome of a publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PublishOutcome {
    /// The broker has the envelope.
    Confirmed {
        /// The partition that stores the envelope.
        partition: u32,
        /// The record's position, if the broker said one.
        position: Option<u64>,
        /// The broker recognised a re-send.
        duplicate: bool,
    },
    /// Definitely not stored.
    Refused {
        /// The error's class, for the reader.
        class: Name,
        /// The number (of the same key) whose refusal caused this one, as the error names it;
        /// none where it was refused for itself.
        root: Option<u64>,
    },
    /// The caller stopped waiting, or the answer never came.
    Unknown,
    /// Cancelled in time by the caller.
    Withdrawn,
}

/// The outcome of a handler call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndOutcome {
    /// The handler succeeded: the envelope is finished.
    Ok,
    /// The handler returned an error.
    Failed,
    /// The handler panicked.
    Panicked,
    /// The handler's future was dropped before it was done (time-out, deadline of a shutdown).
    Abandoned,
    /// The handler ended in error and the dead-letter write is already confirmed: finished.
    DeadLettered,
    /// The handler ended in error and the policy skipped the envelope: finished.
    Skipped,
}

impl EndOutcome {
    /// Whether this outcome finishes the envelope.
    #[must_use]
    pub const fn finishes(self) -> bool {
        matches!(self, Self::Ok | Self::DeadLettered | Self::Skipped)
    }
}

/// The reason why an envelope was finished outside a handler call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishedBy {
    /// The dead-letter write was confirmed.
    DeadLettered,
    /// Skipped by policy.
    Skipped,
    /// Dropped as a second copy.
    DroppedCopy,
    /// A replay that is meant for another group.
    OtherGroupsReplay,
}

/// The reason why a session of a partition began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionCause {
    /// The partition was given to this member.
    Assigned,
    /// The connection came back; the owner is the same.
    Reconnect,
    /// The subscription sought. Opens a new segment.
    Seek,
    /// The broker delivered again from the watermark.
    Redelivery,
    /// A hole in the delivery was noticed, and reading began again.
    Gap,
}

/// A start of a handler call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Pairs with [`Kind::End`] and [`Kind::StartChecked`]; unique within the process.
    pub call: u64,
    /// The topic.
    pub topic: Name,
    /// The group.
    pub group: Name,
    /// The envelope's key.
    pub key: Key,
    /// The envelope's number within topic and key, read from the payload.
    pub number: u64,
    /// [`digest`](crate::history::digest) of the payload as it arrived.
    pub digest: u64,
    /// First attempt is 1.
    pub attempt: u32,
    /// The member that handles it.
    pub member: Name,
    /// The epoch that it was given.
    pub epoch: u64,
    /// The partition that it was read from.
    pub partition: u32,
    /// The position in that partition.
    pub position: u64,
    /// A replay of a dead letter: judged as a key of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// The time of the ownership check (the clock of `Event::at`), where no record [`Kind::StartChecked`] tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<u64>,
}

/// A commit of a watermark with its note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Pairs [`Kind::CommitSent`] with [`Kind::CommitConfirmed`]; unique within the process.
    pub call: u64,
    /// The topic.
    pub topic: Name,
    /// The group.
    pub group: Name,
    /// The partition.
    pub partition: u32,
    /// Everything *below* this position is claimed to be finished.
    pub position: u64,
    /// The epoch it is made under.
    pub epoch: u64,
    /// The member that makes it.
    pub member: Name,
    /// The finished-beyond set: half-open runs `from..to`, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<(u64, u64)>,
}

/// A kind of event, with its data.
///
/// Ranges are half-open. A record is written *before* what it announces (an offer before the
/// call, a start before the handler's first instruction) or, where it reports a result, before
/// the result is used (an end before the handler returns).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// `publish` is about to be called.
    Offered {
        /// Pairs with the outcome; unique within the process.
        call: u64,
        /// The bus instance: order is promised among the publishes of one.
        bus: u32,
        /// The topic.
        topic: Name,
        /// The key.
        key: Key,
        /// 1, 2, 3 … within topic and key; a number is offered once.
        number: u64,
        /// The envelope's id, for the reader.
        id: Name,
        /// [`digest`](crate::history::digest) of the payload.
        digest: u64,
    },
    /// The outcome became known to the bus's publish-result hook or to the caller.
    Published {
        /// The call of the offer.
        call: u64,
        /// The outcome.
        #[serde(flatten)]
        outcome: PublishOutcome,
    },
    /// The outcome was handed to the caller (its await returned).
    Returned {
        /// The call of the offer.
        call: u64,
    },
    /// A refusal sealed its key, and its outcome may be told only later: results of a key are told in order.
    Sealed {
        /// The call of the offer that was refused.
        call: u64,
    },
    /// `resume(topic, key)` is about to be called.
    Resumed {
        /// The bus instance.
        bus: u32,
        /// The topic.
        topic: Name,
        /// The key that may be published again.
        key: Key,
    },
    /// Ownership was checked for a call that is about to start.
    StartChecked {
        /// The call.
        call: u64,
    },
    /// A handler call starts.
    Start(Start),
    /// A handler call ended.
    End {
        /// The call.
        call: u64,
        /// The outcome.
        outcome: EndOutcome,
    },
    /// A record was finished outside a handler call (after its last attempt, or with none).
    Finished {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// The record's position.
        position: u64,
        /// The reason.
        by: FinishedBy,
    },
    /// A commit is about to be handed to the broker.
    CommitSent(Commit),
    /// The broker confirmed a commit.
    CommitConfirmed(Commit),
    /// The committed position as the test's own client reads it after the run.
    CommittedRead {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// Everything below is claimed to be finished.
        position: u64,
    },
    /// A session of a partition begins: its epoch is stored, nothing of it was handed out yet.
    SessionStart {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// The owner.
        member: Name,
        /// The owner's epoch.
        epoch: u64,
        /// The reason why it begins.
        cause: SessionCause,
        /// The first position that it may hand out, where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
    },
    /// A member noticed that it owns the partition no more.
    OwnershipLost {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// The member.
        member: Name,
        /// The epoch that ended.
        epoch: u64,
    },
    /// The test lets a member join. Explains sessions of its group.
    MemberJoined {
        /// The group.
        group: Name,
        /// The member.
        member: Name,
    },
    /// The test lets a member leave. Explains sessions of its group.
    MemberLeft {
        /// The group.
        group: Name,
        /// The member.
        member: Name,
    },
    /// The test injects a fault. Explains sessions until it is healed, and afterwards for the
    /// grace that the expectations grant.
    Fault {
        /// The fault's name; [`Kind::Healed`] with the same name ends it.
        name: Name,
        /// Whether the fault lasts until it is healed, or was over at once.
        lasting: bool,
    },
    /// A lasting fault ended.
    Healed {
        /// The fault's name.
        name: Name,
    },
    /// The test asks for a seek; it takes effect with the session that it causes.
    Seek {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// The target; none for a seek to a time (then the session says `from`).
        to: Option<u64>,
    },
    /// Where a group without progress begins. Opens a segment.
    StartPosition {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// The first position that it will handle.
        position: u64,
    },
    /// The bus reported that records are gone. Opens a segment.
    DataLost {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// First lost position.
        from: u64,
        /// First position that is not lost.
        to: u64,
    },
    /// The bus reported that the log is another than the note was written for. Opens a segment.
    LogReset {
        /// The topic.
        topic: Name,
        /// The group.
        group: Name,
        /// The partition.
        partition: u32,
        /// The position at which the group goes on.
        position: u64,
    },
    /// The test deleted the topic and created it again.
    TopicRecreated {
        /// The topic.
        topic: Name,
    },
    /// The test cut the end off a partition's log.
    LogShortened {
        /// The topic.
        topic: Name,
        /// The partition.
        partition: u32,
        /// The new end: records at and above it are gone.
        end: u64,
    },
    /// The test is about to remove the records of a partition below a position, as an operator does. Where a history has
    /// a purge of a topic, nothing but purges takes records of that topic.
    Purged {
        /// The topic.
        topic: Name,
        /// The partition.
        partition: u32,
        /// The first position that stays.
        first: u64,
    },
    /// A process began to write.
    ProcessStarted,
    /// The test killed a process: what it was handling ends here.
    ProcessKilled {
        /// The process that was killed.
        victim: u32,
    },
    /// After the run: the part of a partition that the log still holds.
    LogBounds {
        /// The topic.
        topic: Name,
        /// The partition.
        partition: u32,
        /// First position kept.
        first: u64,
        /// One past the last.
        end: u64,
    },
    /// After the run: one record as the test's own client reads it.
    LogRecord {
        /// The topic.
        topic: Name,
        /// The partition.
        partition: u32,
        /// The position.
        position: u64,
        /// The key.
        key: Key,
        /// The number in its payload.
        number: u64,
        /// [`digest`](crate::history::digest) of the payload.
        digest: u64,
        /// A replay of a dead letter.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
}

//! Dead letters: envelopes whose attempts are used up, as they are written and read again (S2).
//!
//! **Invariants.** A dead letter keeps key, payload and attributes of its original and names the original's place. Its
//! stamp is derived from that place, so if it is written twice, readers on this library see it once. Its topic belongs
//! to one topic and group, so groups are independent. The envelope is finished only when the write is confirmed: the
//! session keeps the key waiting until then.

use std::sync::Arc;

use super::handler::DeliveryContext;
use crate::backend::{Body, Inbound};
use crate::model::{Envelope, Error, ErrorKind, Group, Position, Result, Stamp, Topic};
use crate::observe::Location;

/// The most bytes of error text in a dead letter.
const MAX_ERROR: usize = 2 * 1024;

/// The most bytes of a type, source or id in a dead letter that keeps only its record's place.
const MAX_NAME: usize = 256;

const GROUP: &str = "eventbusgroup";
const TOPIC: &str = "eventbustopic";
const PARTITION: &str = "eventbuspartition";
const POSITION: &str = "eventbusposition";
const ATTEMPTS: &str = "eventbusattempts";
const ERROR: &str = "eventbuserror";
const REFERENCE: &str = "eventbusreference";
const REPLAY: &str = "eventbusreplayto";

/// The type of a dead letter whose record could not be decoded; its payload is the record's, untouched.
pub const UNDECODABLE: &str = "eventbus.undecodable";

/// The type of a dead letter that keeps only its record's place, where the record's own type is too long.
const CUT: &str = "eventbus.reference";

/// Returns the dead-letter topic of a topic and group. The topic's length makes the name injective: names hold dots.
///
/// # Errors
/// `InvalidName` where the two names together are too long for the name of a topic.
pub fn topic_of(topic: &Topic, group: &Group) -> Result<Topic> {
    format!("dead-letter.{}.{topic}.{group}", topic.as_str().len()).parse().map_err(|_| {
        let message = "topic and group are too long together to name their dead-letter topic";
        Error::new(ErrorKind::InvalidName, message).with("topic", topic).with("group", group)
    })
}

/// A dead letter as read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The original; without its payload where [`is_reference`](Self::is_reference) is set, and without headers and
    /// most attributes where these alone were too large.
    pub envelope: Envelope,
    /// The topic that the original was read from.
    pub topic: Topic,
    /// The group that gave up.
    pub group: Group,
    /// The original's partition.
    pub partition: u32,
    /// The original's position.
    pub position: Position,
    /// Attempts made.
    pub attempts: u32,
    /// The last error's message, cut to 2 KiB.
    pub error: String,
    /// Whether the payload is missing, because the record was too large to be written again; the record is where it
    /// was.
    pub is_reference: bool,
}

impl DeadLetter {
    /// Reads a dead letter from its envelope.
    ///
    /// # Errors
    /// `Undecodable`, naming the attribute that is missing or wrong.
    pub fn read(envelope: &Envelope) -> Result<Self> {
        Ok(Self {
            topic: attribute(envelope, TOPIC)?,
            group: attribute(envelope, GROUP)?,
            partition: attribute(envelope, PARTITION)?,
            position: Position::new(attribute(envelope, POSITION)?),
            attempts: attribute(envelope, ATTEMPTS)?,
            error: envelope.extension(ERROR).unwrap_or_default().to_owned(),
            is_reference: envelope.extension(REFERENCE).is_some(),
            envelope: envelope.clone(),
        })
    }

    /// Returns the envelope to publish to [`topic`](Self::topic), under the original key, so that this group handles it
    /// again in its place in the key's line. Other groups finish it unhandled.
    ///
    /// # Errors
    /// `TooLarge` for a reference: there is no payload to publish.
    pub fn to_replay(&self) -> Result<Envelope> {
        if self.is_reference {
            let error = Error::new(ErrorKind::TooLarge, "the dead letter is a reference; its record is where it was");
            return Err(error.with("topic", &self.topic).with("position", self.position));
        }
        let mut builder = self.envelope.clone().into_builder();
        for name in [TOPIC, GROUP, ATTEMPTS, ERROR, REFERENCE] {
            builder = builder.without_extension(name);
        }
        builder.own_extension(REPLAY, self.group.as_str()).build()
    }
}

fn attribute<T: std::str::FromStr>(envelope: &Envelope, name: &'static str) -> Result<T> {
    envelope.extension(name).and_then(|value| value.parse().ok()).ok_or_else(|| {
        Error::new(ErrorKind::Undecodable, format!("not a dead letter: attribute {name} is missing or wrong"))
            .with("id", envelope.id())
    })
}

pub(crate) fn is_replay(envelope: &Envelope) -> bool {
    envelope.extension(REPLAY).is_some()
}

/// Returns whether the envelope is a dead letter that was replayed to another group.
pub(crate) fn is_replay_for_others(envelope: &Envelope, group: &str) -> bool {
    envelope.extension(REPLAY).is_some_and(|to| to != group)
}

/// Makes the dead letter of a record.
pub(crate) fn wrap(record: &Inbound, context: &DeliveryContext, attempts: u32, error: &str) -> Result<Envelope> {
    let builder = match record.envelope(&context.topic) {
        Ok(envelope) => envelope.into_builder(),
        Err(error) => {
            let Body::Encoded { record: raw, .. } = &record.body else { return Err(error) };
            let builder = Envelope::builder(UNDECODABLE, "/eventbus").payload(raw.payload.clone());
            match &record.key {
                Some(key) => builder.key(key.clone()),
                None => builder,
            }
        }
    };
    builder
        .without_extension(REPLAY)
        .own_extension(GROUP, context.group.as_str())
        .own_extension(TOPIC, context.topic.as_str())
        .own_extension(PARTITION, context.partition.to_string())
        .own_extension(POSITION, record.position.get().to_string())
        .own_extension(ATTEMPTS, attempts.to_string())
        .own_extension(ERROR, printable(error))
        .build()
}

/// What a dead letter keeps of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it.
    Whole,
    /// All but the payload.
    Attributes,
    /// Its place and its key.
    Place,
}

impl Kept {
    /// Returns what to keep where a topic did not take this.
    pub(crate) const fn less(self) -> Self {
        match self {
            Self::Whole => Self::Attributes,
            Self::Attributes | Self::Place => Self::Place,
        }
    }
}

/// Cuts a dead letter down, for a topic that does not take it whole: the record is where it was.
pub(crate) fn cut(letter: Envelope, kept: Kept) -> Result<Envelope> {
    match kept {
        Kept::Whole => Ok(letter),
        Kept::Attributes => {
            letter.into_builder().payload(bytes::Bytes::new()).own_extension(REFERENCE, "payload").build()
        }
        Kept::Place => place_of(&letter),
    }
}

/// Makes a dead letter of what has a bound: key, place and error, and what names the event where that is short.
fn place_of(letter: &Envelope) -> Result<Envelope> {
    let short = |value: &'_ str| value.len() <= MAX_NAME;
    let event_type = Some(letter.event_type()).filter(|name| short(name)).unwrap_or(CUT);
    let source = Some(letter.source()).filter(|source| short(source)).unwrap_or("/eventbus");
    let mut builder = Envelope::builder(event_type, source).time(letter.time());
    if short(letter.id()) {
        builder = builder.id(letter.id());
    }
    if let Some(key) = letter.key() {
        builder = builder.key(key.clone());
    }
    for name in [GROUP, TOPIC, PARTITION, POSITION, ATTEMPTS, ERROR] {
        if let Some(value) = letter.extension(name) {
            builder = builder.own_extension(name, value);
        }
    }
    builder.own_extension(REFERENCE, "record").build()
}

/// Returns the stamp of a dead letter, derived from the original's place.
pub(crate) fn stamp(context: &DeliveryContext, position: Position) -> Stamp {
    let DeliveryContext { group, topic, incarnation, partition, .. } = context;
    Stamp::derived(group.as_str(), topic.as_str(), incarnation, *partition, position)
}

pub(crate) fn location(context: &Arc<DeliveryContext>, record: &Inbound) -> Location {
    Location {
        topic: context.topic.clone(),
        group: context.group.clone(),
        member: context.member.clone(),
        partition: record.partition,
        position: Some(record.position),
        key: record.key.clone(),
    }
}

/// Makes an error's text fit for an attribute: no control characters, at least one character, at most [`MAX_ERROR`]
/// bytes.
fn printable(error: &str) -> String {
    let mut text: String = error.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = text.len().min(MAX_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    if text.is_empty() { "unknown".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Arc<DeliveryContext> {
        Arc::new(DeliveryContext {
            topic: "orders".parse().unwrap(),
            group: "billing".parse().unwrap(),
            member: "m".into(),
            partition: 3,
            epoch: 1,
            incarnation: "i".into(),
        })
    }

    #[test]
    fn names_are_injective_where_dots_move() {
        let name = |t: &str, g: &str| topic_of(&t.parse().unwrap(), &g.parse().unwrap()).unwrap();
        assert_ne!(name("a.b", "c"), name("a", "b.c"));
        assert_eq!(name("orders", "billing").as_str(), "dead-letter.6.orders.billing");
        let long = "x".repeat(150);
        assert!(topic_of(&long.parse().unwrap(), &long.parse().unwrap()).is_err());
    }

    #[test]
    fn a_letter_that_is_too_large_loses_its_place() {
        let long = "x".repeat(5_000);
        let envelope = Envelope::builder(&*long, "/s").id("1").key("k").extension("more", &*long).header("h", &*long);
        let envelope = envelope.payload(long.clone()).build().unwrap();
        let record = Inbound::new(3, Position::new(9), 0, Body::Envelope(envelope));
        let letter = wrap(&record, &context(), 5, "bad").unwrap();
        let mut sizes = vec![letter.size()];
        for kept in [Kept::Whole.less(), Kept::Whole.less().less()] {
            let cut = cut(letter.clone(), kept).unwrap();
            sizes.push(cut.size());
            let read = DeadLetter::read(&cut).unwrap();
            assert_eq!((read.partition, read.position.get(), read.attempts, &*read.error), (3, 9, 5, "bad"));
            assert_eq!((read.envelope.key(), read.envelope.id(), read.is_reference), (letter.key(), "1", true));
        }
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2] && sizes[2] < 1_000, "{sizes:?}");
    }

    #[test]
    fn a_replay_is_the_original_with_its_origin() {
        let envelope = Envelope::builder("T", "/s").key("k").header("h", "v").payload("p").build().unwrap();
        let record = Inbound::new(3, Position::new(9), 0, Body::Envelope(envelope.clone()));
        let letter = DeadLetter::read(&wrap(&record, &context(), 5, "bad\r\nthing").unwrap()).unwrap();
        assert_eq!((letter.partition, letter.position.get(), letter.attempts), (3, 9, 5));
        assert_eq!(letter.error, "bad  thing");
        let replay = letter.to_replay().unwrap();
        assert_eq!((replay.id(), replay.key(), replay.payload()), (envelope.id(), envelope.key(), envelope.payload()));
        assert!(
            is_replay(&replay) && is_replay_for_others(&replay, "other") && !is_replay_for_others(&replay, "billing")
        );
        assert_eq!(replay.extension(POSITION), Some("9"));
    }
}

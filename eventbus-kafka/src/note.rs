//! What is stored beside a committed offset: its metadata (S4, S5).
//!
//! One line of text: version, epoch, the log's incarnation, the print of a finished record, the owner, the core's note.
//! Offsets without it, or with what another program wrote there, are progress under epoch 0.
//!
//! The *print* tells logs apart, since clients are not told a topic's id: place, time and digest of a late record below the
//! watermark. A log that has another record there is another log, and gets another incarnation (S3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bytes::Bytes;
use eventbus_core::backend::Committed;
use eventbus_core::{Position, murmur2};
use rdkafka::Message;

/// The largest note in bytes: what the broker's limit of 4 096 leaves of it after encoding.
pub(crate) const NOTE_BYTES: usize = 2_800;

/// The most of an owner's name that is kept.
const OWNER_BYTES: usize = 64;

/// The most of a payload that a print looks at.
const DIGESTED: usize = 256;

const VERSION: &str = "eb1";

/// What tells a record from one that another log has in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) offset: i64,
    pub(crate) time: i64,
    pub(crate) digest: u64,
}

impl Print {
    pub(crate) fn of<M: Message>(message: &M) -> Self {
        let payload = message.payload().unwrap_or_default();
        let begin = payload.get(..DIGESTED).unwrap_or(payload);
        let key = murmur2(message.key().unwrap_or_default());
        let digest = u64::from(key) << 32 | u64::from(murmur2(begin));
        let time = message.timestamp().to_millis().unwrap_or_default();
        Self { offset: message.offset(), time, digest: digest ^ payload.len() as u64 }
    }
}

/// An offset's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    pub(crate) epoch: u64,
    pub(crate) incarnation: String,
    pub(crate) print: Option<Print>,
    pub(crate) owner: String,
    pub(crate) note: Bytes,
}

impl Stored {
    pub(crate) fn encode(&self) -> String {
        let print = self.print.map(|print| format!("{}:{}:{:x}", print.offset, print.time, print.digest));
        let owner = self.owner.as_bytes();
        format!(
            "{VERSION};{};{};{};{};{}",
            self.epoch,
            self.incarnation,
            print.unwrap_or_default(),
            BASE64.encode(owner.get(..OWNER_BYTES).unwrap_or(owner)),
            BASE64.encode(&self.note),
        )
    }

    /// What was stored; `None` where another program wrote it.
    pub(crate) fn decode(metadata: &str) -> Option<Self> {
        let mut parts = metadata.split(';');
        if parts.next() != Some(VERSION) {
            return None;
        }
        let epoch = parts.next()?.parse().ok()?;
        let incarnation = parts.next()?.to_owned();
        let print = parts.next().filter(|print| !print.is_empty()).map(print_of);
        let owner = BASE64.decode(parts.next()?).ok()?;
        let note = BASE64.decode(parts.next()?).ok()?.into();
        let owner = String::from_utf8_lossy(&owner).into_owned();
        Some(Self { epoch, incarnation, print: print.unwrap_or_default(), owner, note })
    }

    /// The same as the core has it.
    pub(crate) fn committed(&self, next: Position) -> Committed {
        Committed { next, epoch: self.epoch, note: self.note.clone() }
    }
}

fn print_of(text: &str) -> Option<Print> {
    let mut parts = text.split(':');
    let offset = parts.next()?.parse().ok()?;
    let time = parts.next()?.parse().ok()?;
    Some(Print { offset, time, digest: u64::from_str_radix(parts.next()?, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(note: usize) -> Stored {
        Stored {
            epoch: u64::MAX,
            incarnation: "0123456789abcdef".into(),
            print: Some(Print { offset: i64::MAX, time: i64::MAX, digest: u64::MAX }),
            owner: "m;".repeat(OWNER_BYTES / 2),
            note: vec![7; note].into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_fits() {
        for note in [0, 1, NOTE_BYTES] {
            let stored = stored(note);
            let text = stored.encode();
            assert!(text.len() <= 4_096, "{}", text.len());
            assert_eq!(Stored::decode(&text), Some(stored));
        }
        let nothing = Stored::default();
        assert_eq!(Stored::decode(&nothing.encode()), Some(nothing));
    }

    #[test]
    fn what_others_wrote_is_no_note() {
        for text in ["", "x", "eb1", "eb1;x;;;;", "eb2;1;;;;", "eb1;1;;;%;", "eb1;1;i;"] {
            assert_eq!(Stored::decode(text), None, "{text}");
        }
    }
}

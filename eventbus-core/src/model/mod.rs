//! The data of the bus: keys, envelopes, topics, positions, stamps, errors. All are plain values, checked when they are
//! made.

mod codec;
mod envelope;
mod envelope_builder;
mod error;
mod event;
mod key;
mod position;
mod receipt;
mod stamp;
mod topic;
mod topic_spec;

pub use codec::{Codec, Json};
pub(crate) use envelope::Attributes;
pub use envelope::Envelope;
pub use envelope_builder::EnvelopeBuilder;
pub(crate) use envelope_builder::{check_header, check_value, is_text};
pub use error::{Error, ErrorKind, Refusal, Result};
pub use event::Event;
pub use key::{Key, MAX_KEY_BYTES, murmur2};
pub use position::Position;
pub use receipt::{Receipt, Withdrawal};
pub use stamp::{ParseStampError, ProducerId, Stamp};
pub use topic::{Group, MAX_NAME, Topic};
pub use topic_spec::{AfterRefusal, OnExisting, Storage, TopicSpec};

//! What is published and handled: keys, envelopes, topics, positions, stamps, and errors.

mod envelope;
mod envelope_builder;
mod error;
mod event;
mod key;
mod position;
mod stamp;
mod topic;

pub(crate) use envelope::Attributes;
pub use envelope::Envelope;
pub use envelope_builder::EnvelopeBuilder;
pub(crate) use envelope_builder::{check_header, is_text};
pub use error::{Error, ErrorKind, Refusal, Result};
pub use event::{Codec, Event, Json};
pub use key::{Key, MAX_KEY_BYTES, murmur2};
pub use position::Position;
pub use stamp::{ProducerId, Stamp};
pub use topic::{AfterRefusal, Group, MAX_NAME, OnExisting, Storage, Topic, TopicSpec};

//! Payloads that say which envelope they belong to.
//!
//! ```text
//! "EBN1" | number, 8 bytes | digest of topic and key, 8 bytes | padding | digest of all before, 8 bytes
//! ```
//! Numbers are big-endian. The padding is drawn from the number, so that two payloads of one
//! size differ everywhere.

use bytes::{BufMut, Bytes, BytesMut};

use super::Key;

const MAGIC: &[u8; 4] = b"EBN1";
const HEAD: usize = 4 + 8 + 8;
const TAIL: usize = 8;

/// The identity of a numbered payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The number within topic and key.
    pub number: u64,
    subject: u64,
}

impl Numbered {
    /// Whether the payload was made for this topic and key.
    #[must_use]
    pub fn belongs_to(&self, topic: &str, key: &Key) -> bool {
        self.subject == subject(topic, key)
    }
}

/// The reason why bytes are no numbered payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Too short to be one.
    #[error("a numbered payload has at least {expected} bytes, this has {found}", expected = HEAD + TAIL)]
    Short {
        /// The number of bytes.
        found: usize,
    },
    /// The beginning is not that of one.
    #[error("a numbered payload begins with EBN1")]
    NoMagic,
    /// The bytes are not those that were made.
    #[error("the payload's digest does not match its bytes")]
    Damaged,
}

/// Makes a payload for envelope `number` of `key`, `size` bytes long (at least 28).
#[must_use]
pub fn make_payload(topic: &str, key: &Key, number: u64, size: usize) -> Bytes {
    let size = size.max(HEAD + TAIL);
    let mut bytes = BytesMut::with_capacity(size);
    bytes.put_slice(MAGIC);
    bytes.put_u64(number);
    bytes.put_u64(subject(topic, key));
    let mut draw = number;
    while bytes.len() < size - TAIL {
        draw = mix(draw.wrapping_add(0x9E37_79B9_7F4A_7C15));
        let room = (size - TAIL - bytes.len()).min(8);
        bytes.put_slice(&draw.to_be_bytes()[..room]);
    }
    let check = digest(&bytes);
    bytes.put_u64(check);
    bytes.freeze()
}

/// Reads a payload of [`make_payload`].
///
/// # Errors
/// When the bytes are not one, or were changed.
pub fn parse_payload(bytes: &[u8]) -> Result<Numbered, PayloadError> {
    if bytes.len() < HEAD + TAIL {
        return Err(PayloadError::Short { found: bytes.len() });
    }
    if !bytes.starts_with(MAGIC) {
        return Err(PayloadError::NoMagic);
    }
    let (body, check) = bytes.split_at(bytes.len() - TAIL);
    if digest(body) != number_at(check, 0) {
        return Err(PayloadError::Damaged);
    }
    Ok(Numbered { number: number_at(bytes, 4), subject: number_at(bytes, 12) })
}

/// A 64-bit digest of bytes, for telling payloads apart. Not cryptographic; part of no wire format.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut state = mix(bytes.len() as u64 ^ 0x51_7C_C1_B7_27_22_0A_95);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state ^ u64::from_le_bytes(word));
    }
    state
}

/// A bijection of 64 bits in which every bit depends on every other.
pub(super) const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

fn subject(topic: &str, key: &Key) -> u64 {
    let key = key.bytes().map_or(0, |bytes| digest(bytes) | 1);
    mix(digest(topic.as_bytes()) ^ key)
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(word)
}

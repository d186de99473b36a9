//! [`Key`]: the identity that relates envelopes to each other, and chooses their partition.

use std::fmt;

use bytes::Bytes;

use super::error::{Error, ErrorKind};

/// The most bytes in a key.
pub const MAX_KEY_BYTES: usize = 32 * 1024;

/// The aggregate's identity: a non-empty, byte-exact string. Envelopes of one topic are related if their keys are
/// equal, and only then.
///
/// Users give UTF-8; keys of foreign producers are kept as bytes. Cheap to clone.
///
/// ```
/// use eventbus_core::Key;
///
/// let key = Key::try_from("order-42")?;
/// assert_eq!(key.as_str(), Some("order-42"));
/// assert!(key.partition(16) < 16);
/// # Ok::<(), eventbus_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Makes a key of a text.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        Self::from_bytes(text.into())
    }

    /// Makes a key of bytes.
    ///
    /// # Errors
    /// `InvalidName` where there are no bytes, or more than [`MAX_KEY_BYTES`].
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(invalid("a key has at least one byte; an envelope without a key has none at all".into())),
            1..=MAX_KEY_BYTES => Ok(Self(bytes)),
            length => Err(invalid(format!("a key has at most {MAX_KEY_BYTES} bytes, this one has {length}"))),
        }
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key's bytes, shared and not copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Returns the key as text; `None` where it is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Returns the partition of this key among `partitions`: murmur2 as Kafka's own clients compute it, without its
    /// sign bit, modulo the count. The result is part of the wire format and never changes. Zero partitions count as
    /// one.
    #[must_use]
    pub fn partition(&self, partitions: u32) -> u32 {
        (murmur2(&self.0) & 0x7fff_ffff) % partitions.max(1)
    }
}

/// The 32-bit murmur2 hash, with the seed of Kafka's clients.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // The length enters modulo 2^32, as in the reference.
    let mut hash = SEED ^ (data.len() as u32);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidName, message).with("name", "key")
}

impl TryFrom<&str> for Key {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl TryFrom<String> for Key {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::from_bytes(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors in the unit tests of Kafka's Java client.
    #[test]
    fn murmur2_agrees_with_kafkas_own_clients() {
        let vectors: [(&[u8], i32); 7] = [
            (b"", 275_646_681),
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (data, expected) in vectors {
            assert_eq!(murmur2(data) as i32, expected, "{}", String::from_utf8_lossy(data));
        }
    }

    /// The unsigned vectors in the unit tests of Kafka's C client, which cover every length of the last, shorter word.
    #[test]
    fn murmur2_agrees_with_kafkas_c_client() {
        let vectors: [(&str, u32); 7] = [
            ("kafka", 0xd067_cf64),
            ("giberish123456789", 0x8f55_2b0c),
            ("1234", 0x9fc9_7b14),
            ("234", 0xe7c0_09ca),
            ("34", 0x8739_30da),
            ("4", 0x5a4b_5ca1),
            ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
        ];
        for (data, expected) in vectors {
            assert_eq!(murmur2(data.as_bytes()), expected, "{data}");
        }
    }

    #[test]
    fn a_partition_is_the_hash_without_its_sign() {
        // The hash is -973 932 308. Its sign bit is dropped; the absolute value is not taken.
        assert_eq!(Key::new("21").unwrap().partition(1_000), (-973_932_308_i32 & i32::MAX) as u32 % 1_000);
        assert_eq!(Key::new("21").unwrap().partition(0), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_make_a_key_of_these_bytes_with_a_partition_in_range(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..100),
            partitions in 1_u32..5_000,
        ) {
            let key = Key::from_bytes(bytes.clone()).unwrap();
            proptest::prop_assert_eq!(key.as_bytes(), &bytes);
            proptest::prop_assert!(key.partition(partitions) < partitions);
            proptest::prop_assert_eq!(key.as_str(), std::str::from_utf8(&bytes).ok());
        }
    }

    #[test]
    fn a_key_is_never_empty_nor_oversized() {
        assert!(Key::try_from("").is_err());
        assert!(Key::from_bytes(vec![b'k'; MAX_KEY_BYTES + 1]).is_err());
        assert!(Key::from_bytes(vec![0xff; 1024]).is_ok_and(|key| key.as_str().is_none()));
    }
}

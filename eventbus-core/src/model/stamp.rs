//! [`Stamp`]: the identity of one publish, unchanged on every re-send (P3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::position::Position;

/// The id of a producer: a fresh random number per bus instance, never configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProducerId(u128);

impl ProducerId {
    /// Makes a producer id of this number.
    #[must_use]
    pub const fn new(id: u128) -> Self {
        Self(id)
    }

    /// Returns the id as a number.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The identity of one publish: its producer, and a number that the producer counts over all its publishes.
///
/// The text form (32 hexadecimal digits, a dash and the number) is the message id on the wire. Users' ids and sequences
/// never serve to recognise a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)] // the wire's message id: both parts, and nothing else
pub struct Stamp {
    /// The producer that published.
    pub producer: ProducerId,
    /// The number of the publish, as its producer counts.
    pub number: u64,
}

impl Stamp {
    /// Makes a stamp of its two parts.
    #[must_use]
    pub const fn new(producer: ProducerId, number: u64) -> Self {
        Self { producer, number }
    }

    /// Returns the stamp of the dead letter of one record in one group (S2). It is the same whenever it is made, so
    /// that a crash between the letter's write and the commit leaves one letter for readers on this library.
    #[must_use]
    pub fn derived(group: &str, topic: &str, incarnation: &str, partition: u32, position: Position) -> Self {
        let mut digest = Sha256::new_with_prefix(b"eventbus dead letter 1");
        for part in [group, topic, incarnation] {
            // The length in front keeps ("ab", "c") apart from ("a", "bc").
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(partition.to_be_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let mut producer = [0; 16];
        producer.copy_from_slice(&digest[..16]);
        Self::new(ProducerId(u128::from_be_bytes(producer)), position.get())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.producer, self.number)
    }
}

impl Stamp {
    /// Reads a stamp from its written parts: 32 hexadecimal digits, and decimal digits.
    pub(crate) fn from_parts(producer: &str, number: &str) -> Option<Self> {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || producer.len() != 32 || !producer.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        // Two halves are parsed: arithmetic of 128 bits is slow, and every record that is read passes here.
        let half = |digits: &str| u64::from_str_radix(digits, 16).ok().map(u128::from);
        let (high, low) = producer.split_at(16);
        Some(Self::new(ProducerId(half(high)? << 64 | half(low)?), number.parse().ok()?))
    }
}

/// The error of a text that is no stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stamp is 32 hexadecimal digits, a dash and a number")]
#[non_exhaustive]
pub struct ParseStampError;

impl FromStr for Stamp {
    type Err = ParseStampError;

    fn from_str(text: &str) -> Result<Self, ParseStampError> {
        let parsed = text.split_once('-').and_then(|(producer, number)| Self::from_parts(producer, number));
        parsed.ok_or(ParseStampError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_junk_is_refused() {
        let stamp = Stamp::new(ProducerId::new(0xabc), 7);
        assert_eq!(stamp.to_string(), "00000000000000000000000000000abc-7");
        assert_eq!(stamp.to_string().parse::<Stamp>().unwrap(), stamp);
        for junk in ["", "-", "abc-7", "00000000000000000000000000000abc-", "00000000000000000000000000000abc-+7"] {
            assert!(junk.parse::<Stamp>().is_err(), "{junk}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_stamp_is_read_back_from_its_text(producer: u128, number: u64) {
            let stamp = Stamp::new(ProducerId::new(producer), number);
            proptest::prop_assert_eq!(stamp.to_string().parse::<Stamp>().unwrap(), stamp);
            let json = serde_json::to_string(&stamp).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Stamp>(&json).unwrap(), stamp);
            let compact = postcard::to_stdvec(&stamp).unwrap();
            proptest::prop_assert_eq!(postcard::from_bytes::<Stamp>(&compact).unwrap(), stamp);
        }

        #[test]
        fn no_text_makes_parsing_panic_and_only_stamps_parse(text in "([0-9a-f]{31,33})?-?\\PC{0,24}") {
            if let Ok(stamp) = text.parse::<Stamp>() {
                proptest::prop_assert_eq!(stamp.to_string().parse::<Stamp>().unwrap(), stamp);
            }
        }
    }

    /// Derived stamps are part of the wire format: another value would make a second dead letter of one record after an
    /// upgrade.
    #[test]
    fn derived_stamps_never_change() {
        let stamp = Stamp::derived("billing", "orders", "i-1", 3, Position::new(42));
        assert_eq!(stamp.to_string(), "4ea9e9c88ee432fcc42ed05e5ec2cfad-42");
    }

    #[test]
    fn derived_stamps_differ_by_every_part() {
        let at = |g, t, i, p, n| Stamp::derived(g, t, i, p, Position::new(n));
        let one = at("ab", "c", "i", 1, 5);
        assert_eq!(one, at("ab", "c", "i", 1, 5));
        for other in
            [at("a", "bc", "i", 1, 5), at("ab", "c", "j", 1, 5), at("ab", "c", "i", 2, 5), at("ab", "c", "i", 1, 6)]
        {
            assert_ne!(one, other);
        }
    }
}

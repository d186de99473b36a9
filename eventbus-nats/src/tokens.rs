//! Encoding of topics' and groups' names for the server, whose names have fewer characters, and less room.
//!
//! Invariant: different names are written differently (`a.b` and `a_b` are two topics), and the encoding never changes,
//! since it is part of the stored data: see the vectors.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The most bytes of an encoded name that is not cut.
const MAX: usize = 96;
/// Characters of a longer name that stay readable.
const SHOWN: usize = 48;

/// Encodes a topic's or a group's name without dots, in at most 130 bytes: `_` becomes `__`, `.` becomes `_d`; a name
/// that gets longer than 96 bytes is cut, and `_h` with 128 bits of its digest put behind it. No character is written
/// `_h`, so no name can look like a cut one.
///
/// Other characters stay as they are, so free text has to be brought to `A-Z a-z 0-9 . _ -` before.
pub(crate) fn encode_name(name: &str) -> String {
    let encoded = escape_name(name);
    if encoded.len() <= MAX {
        return encoded;
    }
    let mut cut: String = name.chars().take(SHOWN).flat_map(escaped).collect();
    cut.push_str("_h");
    for byte in &Sha256::digest(name.as_bytes())[..16] {
        let _ = write!(cut, "{byte:02x}");
    }
    cut
}

/// Encodes as [`encode_name`], and never cuts: for short names, and for prefixes of other names.
pub(crate) fn escape_name(name: &str) -> String {
    name.chars().flat_map(escaped).collect()
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let (first, second) = match c {
        '_' => ('_', Some('_')),
        '.' => ('_', Some('d')),
        plain => (plain, None),
    };
    std::iter::once(first).chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored data goes by these names: another encoding would not find it.
    #[test]
    fn vectors_never_change() {
        for (name, encoded) in [
            ("orders", "orders"),
            ("a.b", "a_db"),
            ("a_b", "a__b"),
            ("a_db", "a__db"),
            ("a-1", "a-1"),
            (".", "_d"),
            ("__", "____"),
        ] {
            assert_eq!((encode_name(name), escape_name(name)), (encoded.to_owned(), encoded.to_owned()));
        }
        let long = "x".repeat(200);
        assert_eq!(encode_name(&long), format!("{}_h{}", "x".repeat(48), "aa20c23e3201834050679e1d88941b9a"));
        assert_eq!(escape_name(&long), long);
    }

    #[test]
    fn a_cut_never_falls_into_a_character() {
        assert!(encode_name(&"ü".repeat(100)).starts_with("ü"));
    }

    proptest::proptest! {
        #[test]
        fn two_names_never_share_a_token(a in "[A-Za-z0-9._-]{1,200}", b in "[A-Za-z0-9._-]{1,200}") {
            proptest::prop_assert_eq!(a == b, encode_name(&a) == encode_name(&b));
            proptest::prop_assert!(encode_name(&a).len() <= 130, "{}", encode_name(&a).len());
            proptest::prop_assert!(encode_name(&a).bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-'));
        }

        #[test]
        fn close_names_never_share_a_token(a in "[a._h_d]{1,6}", b in "[a._h_d]{1,6}") {
            proptest::prop_assert_eq!(a == b, encode_name(&a) == encode_name(&b));
        }
    }
}

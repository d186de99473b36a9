//! Names of topics and groups: [`Topic`], [`Group`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{Error, ErrorKind};

/// The most characters in a topic's or a group's name.
pub const MAX_NAME: usize = 200;

fn check(what: &'static str, name: &str) -> Result<(), Error> {
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidName, message).with(what, name));
    if name.is_empty() {
        return invalid(format!("a {what} name has 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, got none"));
    }
    if let Some(odd) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
        return invalid(format!("a {what} name is made of A-Z a-z 0-9 . _ -, got {odd:?}"));
    }
    if name.len() > MAX_NAME {
        return invalid(format!("a {what} name has at most {MAX_NAME} characters, got {}", name.len()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                check($what, name)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(name: &str) -> Result<Self, Error> {
                name.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(name: String) -> Result<Self, Error> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
    };
}

name!(
    /// A topic's name: 1 to 200 characters of `A-Z a-z 0-9 . _ -`, the same on every backend. Cheap to clone.
    Topic,
    "topic"
);
name!(
    /// A group's name, by the same rule as a topic's. Cheap to clone.
    Group,
    "group"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_alphabet_are_refused_by_the_character() {
        for (name, says) in [("", "got none"), ("a/b", "'/'"), ("ü", "'ü'"), ("a b", "' '")] {
            let error = name.parse::<Topic>().unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!("a".repeat(201).parse::<Topic>().is_err());
        assert!("a".repeat(200).parse::<Topic>().is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_names_panic_and_what_passes_is_kept(text in "\\PC{0,8}|[A-Za-z0-9._-]{0,210}") {
            let valid = (1..=MAX_NAME).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            proptest::prop_assert_eq!(text.parse::<Topic>().is_ok(), valid);
            proptest::prop_assert_eq!(text.parse::<Group>().map(|name| name.to_string()).ok(), valid.then_some(text));
        }
    }
}

//! Declarations of settings, each made once. [`section!`] makes a section's struct, its table of settings, and the code
//! that hands them to a builder. [`words!`] makes the enum of the words that a setting takes.

use std::time::Duration;

/// Declares a section: its settings one after another, each in the form
///
/// ```text
/// /// what it does
/// name: type = "its default in words", what it takes => the builder's setter;
/// ```
///
/// The text is one line: it documents the field, and the reference and the schema show it. A setting without a setter
/// reaches the builder together with others, by the section's own code. `given` is a field that is not a setting. The
/// macro makes `KNOBS`, the section's table of settings, and `apply`, which hands the settings with a value to a
/// builder.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $name:ident in $section:ident for $builder:ty {
            $(given { $(#[$given_meta:meta])* $given:ident: $given_type:ty })?
            $(
                #[doc = $about:literal]
                $field:ident: $type:ty = $default:literal, $kind:expr $(=> $set:expr)?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$given_meta])* pub $given: $given_type,)?
            $(#[doc = concat!($about, "; ", $default)] pub $field: Option<$type>,)*
        }

        impl $name {
            pub(super) const KNOBS: &[$crate::config::Knob] = &[$($crate::config::Knob {
                name: stringify!($field),
                section: $crate::config::Section::$section,
                kind: $kind,
                help: concat!($about, "; ", $default).trim_ascii_start(),
            }),*];

            pub(super) fn apply(&self, builder: $builder) -> $builder {
                $($(let builder = $crate::config::declare::with(builder, self.$field.clone(), $set);)?)*
                builder
            }
        }
    };
}

/// Declares the enum of the words that a setting takes, each with the variant of the library's type that it stands for.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident for $library:ty { $($(#[$variant_meta:meta])* $word:literal $variant:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            pub(super) const WORDS: &[&str] = &[$($word),*];
        }

        impl From<$name> for $library {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$variant => Self::$variant,)*
                }
            }
        }
    };
}

pub(super) use {section, words};

/// Calls a builder's setter, if there is a value for it.
pub(super) fn with<B, T>(builder: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// Turns the setter of a duration into a setter of milliseconds.
pub(super) fn millis<B>(set: impl FnOnce(B, Duration) -> B) -> impl FnOnce(B, u64) -> B {
    |builder, millis| set(builder, Duration::from_millis(millis))
}

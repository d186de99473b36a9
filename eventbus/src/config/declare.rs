//! Declarations of settings, each once. [`section!`] makes a section's struct, its table of settings, and the way of these
//! into a builder; [`words!`] makes the words that a setting takes.

use std::time::Duration;

/// Declares a section: its settings one after another, each as
///
/// ```text
/// /// what it does
/// name: type = "its default in words", what it takes => the builder's setter;
/// ```
///
/// The text is one line: it is the field's documentation, and stands in the reference and the schema. A setting without a
/// setter reaches the builder together with others, by code of the section's own. `given` is a field that is no setting.
/// The section's table of settings is its `KNOBS`; its `apply` hands what was set to a builder.
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

/// Declares the words that a setting takes, each with the variant of the library's type that it stands for.
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

/// Hands a value to a builder's setter where there is one.
pub(super) fn with<B, T>(builder: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// The setter of a time, as one of milliseconds.
pub(super) fn millis<B>(set: impl FnOnce(B, Duration) -> B) -> impl FnOnce(B, u64) -> B {
    |builder, millis| set(builder, Duration::from_millis(millis))
}

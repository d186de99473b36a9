//! Settings of backends, each declared once by [`settings!`](macro@crate::settings), and the checks that they share
//! (S8).
//!
//! Invariant: the error of a refused value names its setting, what was expected and what was given. A secret is never
//! repeated, so none of these checks is for one.

use percent_encoding::percent_decode_str;

use crate::model::Result;

pub use crate::validate::{invalid, millis, unsafe_setting, unsupported, within};

/// Declares the configuration of a backend: each setting once, with its documentation, default and range.
///
/// - `given` lists fields without default or setter: the type's own code sets them.
/// - `text` lists settings of text; their setters take anything that becomes a `String`.
/// - `value` lists settings of any other type. `in` names the range of accepted values.
///
/// The macro makes the struct with fields that the crate sees, a private `with_defaults` that takes the given fields, a
/// setter named after each setting, and a private `check_ranges`, to be called by `validate`.
///
/// ```
/// use std::time::Duration;
/// use eventbus_core::toolkit::settings::{millis, prefix};
///
/// eventbus_core::settings! {
///     /// Settings of a bus on a broker.
///     #[derive(Debug, Clone)]
///     #[must_use]
///     pub struct Config {
///         given { host: String, }
///         text {
///             /// Sets what names begin with. Default `eventbus`.
///             prefix = "eventbus";
///         }
///         value {
///             /// How long an answer may take. Default 5 s.
///             timeout: Duration = Duration::from_secs(5), in millis(100, 60_000);
///             /// The most records on their way. Default 1 000.
///             window: usize = 1_000, in 1..;
///             /// Whether to tell more. Default no.
///             verbose: bool = false;
///         }
///     }
/// }
///
/// impl Config {
///     pub fn new(host: &str) -> Self {
///         Self::with_defaults(host.to_owned())
///     }
///
///     pub fn validate(&self) -> eventbus_core::Result<()> {
///         prefix(&self.prefix, 1, "-")?;
///         self.check_ranges()
///     }
/// }
///
/// let config = Config::new("localhost").prefix("shop").verbose(true);
/// assert!(config.validate().is_ok() && config.host == "localhost" && config.verbose);
/// let error = config.timeout(Duration::ZERO).validate().unwrap_err();
/// assert!(error.to_string().contains("timeout: expected 100ms to 60s, got 0ns"), "{error}");
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $config:ident {
            given { $($(#[$given_meta:meta])* $given:ident: $kind:ty,)* }
            $(text { $($(#[$text_meta:meta])* $text:ident = $said:expr;)* })?
            value { $($(#[$meaning:meta])* $name:ident: $type:ty = $default:expr $(, in $range:expr)?;)* }
        }
    ) => {
        $(#[$meta])*
        pub struct $config {
            $($(#[$given_meta])* pub(crate) $given: $kind,)*
            $($(pub(crate) $text: String,)*)?
            $(pub(crate) $name: $type,)*
        }

        impl $config {
            fn with_defaults($($given: $kind),*) -> Self {
                Self { $($given,)* $($($text: $said.into(),)*)? $($name: $default,)* }
            }

            $($($(#[$text_meta])*
            pub fn $text(mut self, $text: impl Into<String>) -> Self {
                self.$text = $text.into();
                self
            })*)?

            $($(#[$meaning])*
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            })*

            /// Checks each value that has a range.
            fn check_ranges(&self) -> $crate::Result<()> {
                $($($crate::toolkit::settings::within(stringify!($name), &self.$name, $range)?;)?)*
                Ok(())
            }
        }
    };
}

/// Refuses a name on a list of names that would break the contract, or that another setting stands for, each with a
/// reason.
///
/// # Errors
/// `UnsafeConfig`, with the reason.
pub fn refuse(refused: &'static [(&'static str, &'static str)], name: &str) -> Result<()> {
    match refused.iter().find(|(refused, _)| *refused == name) {
        Some((refused, why)) => Err(unsafe_setting(refused, why)),
        None => Ok(()),
    }
}

/// Checks that a text is one of these words, of which there are at least two.
///
/// # Errors
/// `InvalidConfig`, naming the words and the text.
pub fn one_of(setting: &'static str, text: &str, words: &[&str]) -> Result<()> {
    match words.split_last() {
        Some((last, others)) if !words.contains(&text) => {
            Err(invalid(setting, format!("expected {} or {last}, got {text:?}", others.join(", "))))
        }
        _ => Ok(()),
    }
}

/// Checks the prefix of names on a broker: `least` to 32 letters, digits and these marks.
///
/// # Errors
/// `InvalidConfig`, naming the accepted characters and the given text.
pub fn prefix(text: &str, least: usize, marks: &str) -> Result<()> {
    if (least..=32).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c)) {
        return Ok(());
    }
    let length = if least == 0 { "at most 32".to_owned() } else { format!("{least} to 32") };
    let marks: String = marks.chars().flat_map(|mark| [' ', mark]).collect();
    Err(invalid("prefix", format!("expected {length} of A-Z a-z 0-9{marks}, got {text:?}")))
}

/// Returns whether this can be a host, with or without a port of 1 to 65535.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let port = match text.rsplit_once(':') {
        // Behind more than one colon stands a part of an address, unless that is in brackets.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => Some(port),
        _ => None,
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    let characters = text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    !text.is_empty() && characters && port.is_none_or(is_port)
}

/// Returns whether this is `SCHEME://HOST[:PORT]` with one of these schemes.
#[must_use]
pub fn is_server(text: &str, schemes: &[&str]) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| schemes.contains(&scheme) && is_host(host))
}

/// The expectation of servers whose user and password cannot be told from their hosts.
pub const UNCLEAR_LOGIN: &str =
    "expected HOST[:PORT], several with commas between them, and a login before the first, percent-encoded";

/// A user at a server, with a password if one was given. Secret: must not be printed.
pub type User = (String, Option<String>);

/// Reads the URLs of servers, separated by commas. Returns them without secrets, with this scheme where they have none,
/// and the user. A user, or a user and a password separated by `:`, stands before the first host and `@`,
/// percent-encoded; the same may stand before others. Where it stands otherwise, a comma may be part of a password, and
/// the one server returned is empty. Checks nothing else; see [`is_server`].
///
/// ```
/// use eventbus_core::toolkit::settings::servers;
///
/// let (urls, user) = servers("me:p%40ss@a:1, x://b", "x");
/// assert_eq!(urls, ["x://a:1", "x://b"]);
/// assert_eq!(user, Some(("me".into(), Some("p@ss".into()))));
/// ```
#[must_use]
pub fn servers(text: &str, scheme: &str) -> (Vec<String>, Option<User>) {
    let (mut urls, mut logins) = (Vec::new(), Vec::new());
    for server in text.split(',').map(str::trim) {
        let (scheme, rest) = server.split_once("://").unwrap_or((scheme, server));
        let (login, host) = rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
        logins.push(login);
        urls.push(format!("{scheme}://{host}"));
    }
    let login = logins.first().copied().flatten();
    if logins.into_iter().flatten().any(|other| Some(other) != login) {
        return (vec![String::new()], None);
    }
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = login.map(|login| match login.split_once(':') {
        Some((user, password)) => (plain(user), Some(plain(password))),
        None => (plain(login), None),
    });
    (urls, user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorKind;

    fn message(result: Result<()>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    }

    #[test]
    fn one_of_names_the_words_and_the_text() {
        let error = message(one_of("c", "z", &["x", "y", "w"]));
        assert!(error.contains("c: expected x, y or w, got \"z\""), "{error}");
        assert!(one_of("c", "w", &["x", "y", "w"]).is_ok());
    }

    #[test]
    fn a_prefix_has_letters_digits_and_the_broker_s_marks() {
        for (text, least, marks) in [("", 0, "-"), ("aZ9-._", 1, "._-"), (&"a".repeat(32), 1, "")] {
            assert!(prefix(text, least, marks).is_ok(), "{text}");
        }
        for (text, least, marks) in [("", 1, "-"), ("a.b", 0, "-"), ("ü", 0, "-"), (&"a".repeat(33), 1, "")] {
            assert!(prefix(text, least, marks).is_err(), "{text}");
        }
        let error = message(prefix("a/b", 0, "._-"));
        assert!(error.contains("prefix: expected at most 32 of A-Z a-z 0-9 . _ -, got \"a/b\""), "{error}");
        let error = message(prefix("", 1, "_-"));
        assert!(error.contains("prefix: expected 1 to 32 of A-Z a-z 0-9 _ -, got \"\""), "{error}");
    }

    #[test]
    fn what_would_break_the_contract_is_refused_by_name_and_says_why() {
        const REFUSED: &[(&str, &str)] = &[("acks", "always all")];
        assert!(refuse(REFUSED, "ack").is_ok());
        let error = refuse(REFUSED, "acks").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeConfig);
        assert!(error.to_string().contains("acks: always all [setting=acks]"), "{error}");
    }

    #[test]
    fn a_host_holds_nothing_that_could_be_a_path_or_a_secret() {
        assert!(["a", "a.b-c_d:1", "[::1]:9"].into_iter().all(is_host));
        assert!(!["", "a/b", "u@a", "a b", "http://a"].into_iter().any(is_host));
        assert!(["a:65535", "::1", "fe80::1:99999", "[::1]"].into_iter().all(is_host));
        assert!(!["a:0", "a:65536", "a:99999", "a:", "a:x", "[::1]:0", "a:+1"].into_iter().any(is_host));
    }

    #[test]
    fn no_secret_is_left_in_a_server_s_url_and_the_user_stands_before_the_first() {
        let user = |user: &str, password: Option<&str>| Some((user.to_owned(), password.map(str::to_owned)));
        for (text, urls, found) in [
            ("a", vec!["x://a"], None),
            ("y://a:1, b", vec!["y://a:1", "x://b"], None),
            ("y://me:s@ecret@a,b, me:s@ecret@c", vec!["y://a", "x://b", "x://c"], user("me", Some("s@ecret"))),
            ("t%2Fok@a,b", vec!["x://a", "x://b"], user("t/ok", None)),
            // A comma may be part of a password.
            ("a,me:secret@b", vec![""], None),
            ("me:secret@a,you@b", vec![""], None),
            ("me:@a", vec!["x://a"], user("me", Some(""))),
            ("", vec!["x://"], None),
        ] {
            let (read, user) = servers(text, "x");
            assert_eq!((read, user), (urls.into_iter().map(str::to_owned).collect(), found), "{text}");
        }
    }

    #[test]
    fn a_server_has_one_of_the_schemes_and_a_host() {
        assert!(["x://a", "y://a:1"].into_iter().all(|url| is_server(url, &["x", "y"])));
        assert!(!["a", "x://", "z://a", "x://u@a", ""].into_iter().any(|url| is_server(url, &["x", "y"])));
    }
}

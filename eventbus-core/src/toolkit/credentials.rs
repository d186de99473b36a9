//! Credentials of the bus at a broker, and encryption against eavesdroppers.
//!
//! Invariant: a secret is never printed.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::Result;
use crate::validate::invalid;

/// A text that is never printed, not even by `Debug`.
///
/// ```
/// use eventbus_core::toolkit::credentials::Secret;
///
/// let secret = Secret::from("s3cret");
/// assert_eq!((format!("{secret:?}").as_str(), secret.reveal()), ("Secret", "s3cret"));
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Returns the text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Credentials by SASL.
///
/// ```
/// use eventbus_core::toolkit::credentials::{Mechanism, Sasl};
///
/// let sasl = Sasl::new(Mechanism::ScramSha256, "me", "s3cret");
/// assert_eq!((sasl.mechanism.as_str(), sasl.password.reveal()), ("SCRAM-SHA-256", "s3cret"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The user; not printed either.
    pub user: Secret,
    /// The user's password.
    pub password: Secret,
}

impl Sasl {
    /// Makes credentials of a user with a password.
    pub fn new(mechanism: Mechanism, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { mechanism, user: Secret::from(user), password: Secret::from(password) }
    }
}

/// A mechanism of SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// The password in plain text: over TLS only, unless the network is trusted.
    Plain,
    /// A challenge, by SHA-256.
    ScramSha256,
    /// A challenge, by SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// Returns the mechanism's registered name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Encryption of connections. Certificates and host names are always checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs)] // set as a whole
pub struct Tls {
    /// Whether connections that are not encrypted are refused. Default: off, unless a URL asks for it.
    pub required: bool,
    /// Whether encryption begins before the server's first word, where servers else begin in plain text. Default: off.
    pub first: bool,
    /// The file with the certificates of trusted authorities, PEM; added to the system's or used in their place,
    /// depending on the backend's client. Default: the system's.
    pub root_certificates: Option<PathBuf>,
    /// The files of the client's certificate and its key, PEM (mutual TLS).
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// Checks that a file which a setting names can be read, before a client is given it: clients' errors name no file.
///
/// # Errors
/// `InvalidConfig`, with the setting, the file and the system's words.
pub fn readable(setting: &'static str, file: &Path) -> Result<()> {
    match std::fs::File::open(file).and_then(|opened| opened.metadata()) {
        Ok(found) if found.is_dir() => {
            Err(invalid(setting, format!("expected a file, {} is a directory", file.display())))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(setting, format!("{} cannot be read: {error}", file.display())).caused_by(error)),
    }
}

impl Tls {
    /// Checks that the files can be read.
    ///
    /// # Errors
    /// As [`readable`].
    pub fn check_files(&self) -> Result<()> {
        let (certificate, key) = self.client_certificate.as_ref().map_or((None, None), |(c, k)| (Some(c), Some(k)));
        let files = [
            ("root_certificates", self.root_certificates.as_ref()),
            ("client_certificate", certificate),
            ("client_key", key),
        ];
        files.into_iter().try_for_each(|(setting, file)| file.map_or(Ok(()), |file| readable(setting, file)))
    }

    /// Returns whether connections are encrypted from the beginning, whatever the server says.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.required || self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let sasl = Sasl::new(Mechanism::Plain, "me", "s3cret");
        assert_eq!(format!("{sasl:?}"), "Sasl { mechanism: Plain, user: Secret, password: Secret }");
        assert_eq!(format!("{:?}", ("me", Secret::from(String::from("s3cret")))), "(\"me\", Secret)");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_setting() {
        let nowhere = || PathBuf::from("/nowhere/file.pem");
        for (tls, setting) in [
            (Tls { root_certificates: Some(nowhere()), ..Tls::default() }, "root_certificates"),
            (Tls { client_certificate: Some((nowhere(), nowhere())), ..Tls::default() }, "client_certificate"),
            (Tls { client_certificate: Some(("Cargo.toml".into(), nowhere())), ..Tls::default() }, "client_key"),
        ] {
            let error = tls.check_files().unwrap_err().to_string();
            assert!(
                error.contains("/nowhere/file.pem cannot be read: No such file") && error.contains(setting),
                "{error}"
            );
        }
        let error = readable("credentials_file", Path::new("src")).unwrap_err().to_string();
        assert!(error.contains("credentials_file: expected a file, src is a directory"), "{error}");
        assert!(Tls::default().check_files().is_ok());
    }

    #[test]
    fn encryption_is_off_unless_it_is_asked_for() {
        assert!(!Tls::default().is_on());
        assert!(Tls { first: true, ..Tls::default() }.is_on() && Tls { required: true, ..Tls::default() }.is_on());
    }
}

//! Codecs between a user's value and a payload: [`Codec`], [`Json`].

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, ErrorKind};

/// A codec: it turns values into payloads and back. [`Json`] is the default; a replacement is one small type.
///
/// ```
/// use eventbus_core::{Codec, Json};
///
/// let payload = Json.encode(&[1, 2])?;
/// assert_eq!(&payload[..], b"[1,2]");
/// assert_eq!(Json.decode::<Vec<u8>>(&payload)?, [1, 2]);
/// # Ok::<(), eventbus_core::Error>(())
/// ```
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// Returns a short name, for errors and logs.
    fn name(&self) -> &'static str;

    /// Returns the media type of the payloads, written as the envelope's content type.
    fn content_type(&self) -> &'static str;

    /// Encodes a value as a payload.
    ///
    /// # Errors
    /// `InvalidEnvelope` where the value has no form in this codec.
    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes, Error>;

    /// Decodes the value in a payload.
    ///
    /// # Errors
    /// `Undecodable`, saying what was expected and where.
    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, Error>;
}

/// The default codec: JSON, by serde.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // a unit, used as a value
pub struct Json;

impl Codec for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes, Error> {
        match serde_json::to_vec(value) {
            Ok(payload) => Ok(payload.into()),
            Err(error) => {
                let message = format!("the payload does not serialise as JSON: {error}");
                Err(Error::new(ErrorKind::InvalidEnvelope, message).caused_by(error))
            }
        }
    }

    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(payload).map_err(|error| {
            let message = format!("the payload is not the expected JSON: {error}");
            Error::new(ErrorKind::Undecodable, message).caused_by(error)
        })
    }
}

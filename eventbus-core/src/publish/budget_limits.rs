//! How much room there is, and which limits are refused (S8).

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoomLimits {
    /// Envelopes that may hold room.
    pub envelopes: usize,
    /// Bytes that may be held.
    pub bytes: usize,
    /// One key may hold one part of this many, or one envelope.
    pub share: usize,
    /// Envelopes that may wait for room.
    pub waiting: usize,
}

impl Default for RoomLimits {
    /// 10 000 envelopes and 64 MiB, an eighth for one key, ten times as many envelopes waiting.
    fn default() -> Self {
        RoomLimits { envelopes: 10_000, bytes: 64 << 20, share: 8, waiting: 100_000 }
    }
}

impl RoomLimits {
    /// The limits of a reserve beside this room, for what must go on when the room is taken: a
    /// sixteenth of it, and at least 64 envelopes.
    #[must_use]
    pub(crate) fn reserve(&self) -> Self {
        let envelopes = (self.envelopes / 16).max(64);
        RoomLimits {
            envelopes,
            bytes: (self.bytes / 16).max(1),
            share: self.share,
            waiting: envelopes.saturating_mul(10),
        }
    }

    /// Refuses limits under which nothing could be published. No envelopes waiting is possible: then
    /// each publish finds room or is refused.
    ///
    /// # Errors
    ///
    /// [`RoomError`], naming the limit.
    pub(crate) fn validate(&self) -> Result<(), RoomError> {
        let zero = |limit: usize, name| {
            if limit == 0 { Err(RoomError { name }) } else { Ok(()) }
        };
        zero(self.envelopes, "envelopes")?;
        zero(self.bytes, "bytes")?;
        zero(self.share, "share")
    }
}

/// A limit that would let nothing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("publish budget: {name} is 0, expected 1 or more")]
#[non_exhaustive]
pub(crate) struct RoomError {
    /// The limit's name.
    pub name: &'static str,
}

//! Settings of a world: [`MemoryConfig`].

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::Pipelining;
use eventbus_core::toolkit::settings::invalid;
use eventbus_core::{Env, Result, SystemEnv, settings};

/// Numbering of the positions in a topic's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Positions {
    /// Each partition counts its own records from 0 on, without gaps. The default.
    #[default]
    PerPartition,
    /// All partitions of a topic share one sequence from 1 on, so that a partition's positions have gaps. The first
    /// position of every partition is then the topic's: it moves past an idle partition beside a busy one, and
    /// retention counts topic-wide.
    Shared,
}

/// Treatment of a stamp that is sent again (P3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Copies {
    /// The stamp is recognised within the topic's duplicate window. The window is exact: at its end, to the nanosecond,
    /// the stamp is stored again. The default.
    #[default]
    Window,
    /// The stamp is never recognised: each submission is stored, as on a broker without message ids. Topics then report
    /// a window of zero.
    Stored,
    /// The stamp is always recognised, whatever a topic asks for. Topics then report the longest window there is.
    Dropped,
}

/// A range of waits, both ends included. Each use draws a wait from it, by the world's [`Env`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wait {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Wait {
    /// No wait at all.
    pub const NONE: Self = Self { least: Duration::ZERO, most: Duration::ZERO };

    /// A range between two waits, given in either order.
    #[must_use]
    pub fn between(one: Duration, other: Duration) -> Self {
        Self { least: one.min(other), most: one.max(other) }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.most.is_zero()
    }

    /// Draws a wait from the range, in steps of a microsecond.
    pub(crate) fn draw(&self, env: &dyn Env) -> Duration {
        let span = u64::try_from((self.most - self.least).as_micros()).unwrap_or(u64::MAX);
        if span == 0 {
            return self.least;
        }
        self.least + Duration::from_micros(env.random() % (span + 1))
    }
}

/// Latency of the broker. Default: none, so that every call is answered before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Latency {
    /// Wait from a submission to its storing.
    pub submit: Wait,
    /// Wait from the storing until the ticket is told.
    pub answer: Wait,
    /// Wait on either way of every other call: commits, reads, joins, descriptions.
    pub call: Wait,
    /// Wait between two batches of records to one member.
    pub fetch: Wait,
}

impl Latency {
    /// Sets the same wait everywhere.
    #[must_use]
    pub fn everywhere(wait: Wait) -> Self {
        Self { submit: wait, answer: wait, call: wait, fetch: wait }
    }
}

settings! {
    /// Settings of a world, all with defaults; [`build`](Self::build) makes the world.
    ///
    /// ```
    /// use eventbus_memory::{MemoryConfig, Positions};
    ///
    /// let world = MemoryConfig::new().positions(Positions::Shared).build()?;
    /// # Ok::<(), eventbus_core::Error>(())
    /// ```
    #[derive(Debug, Clone)]
    #[must_use]
    pub struct MemoryConfig {
        given {}
        value {
            /// The largest record, in bytes as `Envelope::size` counts. Default 1 MiB, about what NATS and Kafka take: a
            /// test meets the same refusal.
            max_record_bytes: usize = 1 << 20, in 1..;
            /// Pipelining of publishers: how much one may have outstanding. With [`Pipelining::PerPartition`] the log
            /// has no hole behind a record that failed, whatever fault is injected. Default [`Pipelining::OnePerKey`].
            pipelining: Pipelining = Pipelining::OnePerKey;
            /// Numbering of positions. Default [`Positions::PerPartition`].
            positions: Positions = Positions::PerPartition;
            /// Treatment of a stamp that is sent again. Default [`Copies::Window`].
            copies: Copies = Copies::default();
            /// Latency of the broker. Default: none.
            latency: Latency = Latency::default();
            /// The largest note beside a watermark, in bytes. Default 3 072.
            note_bytes: usize = 3_072;
            /// The most records in one batch to a member. Default 1 024.
            fetch_batch: usize = 1_024, in 1..;
            /// Records of a partition that still come after a pause, as from a broker with batches under way. Default:
            /// none.
            overshoot: usize = 0;
            /// The most records that a publisher is told it may have outstanding. Default 4 096.
            in_flight: usize = 4_096, in 1..;
            /// Time after which a submission without an answer is told as unknown. Default 1 s.
            answer_timeout: Duration = Duration::from_secs(1);
            /// The shortest time between two reports to an idle partition of how far a shared sequence has come.
            /// Default 100 ms.
            caught_up_interval: Duration = Duration::from_millis(100);
            /// Frees the partitions of a killed member at once, instead of after its session time-out. Default no.
            expire_killed_at_once: bool = false;
            /// Source of the time of day (read once, when the world is made; tokio's clock counts on from there) and of
            /// all randomness. Default [`SystemEnv`].
            env: Arc<dyn Env> = Arc::new(SystemEnv);
        }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self::with_defaults()
    }
}

impl MemoryConfig {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the settings. `InvalidConfig`, naming the setting, where no world can be made of them.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_ranges()?;
        if self.answer_timeout.is_zero() {
            return Err(invalid("answer_timeout", "expected more than zero"));
        }
        Ok(())
    }
}

//! Settings of a world: [`MemoryConfig`].

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::backend::Pipelining;
use eventbus_core::toolkit::settings::{invalid, within};
use eventbus_core::{Env, Result, SystemEnv, settings};

/// How the positions of a topic's partitions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Positions {
    /// Each partition counts its own records from 0 on, without gaps. The default.
    #[default]
    PerPartition,
    /// All partitions of a topic share one sequence from 1 on, so that a partition's positions have gaps. The log's first
    /// position is then the topic's: an idle partition beside a busy one sees it pass, and retention counts topic-wide.
    Shared,
}

/// Whether a stamp that is sent again is recognised (P3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Copies {
    /// Within the topic's duplicate window. It is exact: at its end, to the nanosecond, the stamp is stored again. The
    /// default.
    #[default]
    Window,
    /// Never: each submission is stored, like on a broker that knows no message ids. Topics then say a window of zero.
    Stored,
    /// Always, whatever window a topic asks for. Topics then say the longest window there is.
    Dropped,
}

/// A range of waits, both ends included. A number out of it is drawn for every use from the world's [`Env`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wait {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Wait {
    /// No wait at all.
    pub const NONE: Self = Self { least: Duration::ZERO, most: Duration::ZERO };

    /// A wait between these two, in any order.
    #[must_use]
    pub fn between(one: Duration, other: Duration) -> Self {
        Self { least: one.min(other), most: one.max(other) }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.most.is_zero()
    }

    /// A wait of the range, in steps of a microsecond.
    pub(crate) fn draw(&self, env: &dyn Env) -> Duration {
        let span = u64::try_from((self.most - self.least).as_micros()).unwrap_or(u64::MAX);
        if span == 0 {
            return self.least;
        }
        self.least + Duration::from_micros(env.random() % (span + 1))
    }
}

/// How far away the broker is. Default: nowhere, everything is answered inside the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Latency {
    /// From a submission to its storing.
    pub submit: Wait,
    /// From the storing to the ticket.
    pub answer: Wait,
    /// Either way of every other call: commits, reads, joins, descriptions.
    pub call: Wait,
    /// Between two batches of records to one member.
    pub fetch: Wait,
}

impl Latency {
    /// The same wait everywhere.
    #[must_use]
    pub fn everywhere(wait: Wait) -> Self {
        Self { submit: wait, answer: wait, call: wait, fetch: wait }
    }
}

settings! {
    /// Settings of a world, all with defaults; [`build`](Self::build) makes it.
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
        given {
            max_record_bytes: Option<usize>,
        }
        value {
            /// How much a publisher may have outstanding. With [`Pipelining::PerPartition`] the log has no hole behind a
            /// record that failed, whatever fault is injected. Default [`Pipelining::OnePerKey`].
            pipelining: Pipelining = Pipelining::OnePerKey;
            /// How positions are counted. Default [`Positions::PerPartition`].
            positions: Positions = Positions::PerPartition;
            /// Whether a stamp that is sent again is recognised. Default [`Copies::Window`].
            copies: Copies = Copies::default();
            /// How far away the broker is. Default: no wait.
            latency: Latency = Latency::default();
            /// The largest note beside a watermark in bytes. Default 3 072.
            note_bytes: usize = 3_072;
            /// The most records in one batch to a member. Default 1 024.
            fetch_batch: usize = 1_024, in 1..;
            /// How many records of a partition still come after a pause, to be like a broker with batches under way.
            /// Default 0.
            overshoot: usize = 0;
            /// The most records that a publisher is told to have outstanding. Default 4 096.
            in_flight: usize = 4_096, in 1..;
            /// When a submission that got no answer is told as unknown. Default 1 s.
            answer_timeout: Duration = Duration::from_secs(1);
            /// With shared positions: how often at most an idle partition is told how far the sequence has come.
            /// Default 100 ms.
            caught_up_interval: Duration = Duration::from_millis(100);
            /// Whether the partitions of a member that was killed are free at once, instead of after its session time-out.
            /// Default no.
            expire_killed_at_once: bool = false;
            /// Where the time of day (read once, when the world is made; tokio's clock counts on from there) and all
            /// randomness come from. Default [`SystemEnv`].
            env: Arc<dyn Env> = Arc::new(SystemEnv);
        }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self::with_defaults(None)
    }
}

impl MemoryConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest record in bytes, as `Envelope::size` counts. Default: no limit.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = Some(bytes);
        self
    }

    /// `InvalidConfig`, naming the setting, for what no world can be made of.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_ranges()?;
        within("max_record_bytes", &self.max_record_bytes.unwrap_or(1), 1..)?;
        if self.answer_timeout.is_zero() {
            return Err(invalid("answer_timeout", "expected more than zero"));
        }
        Ok(())
    }
}

//! The plan of a schedule: its settings, drawn before it begins.

use std::time::Duration;

use eventbus_core::backend::Pipelining;
use eventbus_core::{
    Backoff, BusConfig, FailurePolicy, Jitter, Mutant, OnDataLoss, OnLogReset, Subscribe, Threads, TopicSpec,
};
use eventbus_memory::{Copies, Latency, MemoryConfig, Positions, Wait};

use super::chaos::Chaos;
use super::dice::Dice;

/// The topic of every schedule.
pub(super) const TOPIC: &str = "orders";
/// The group of every schedule.
pub(super) const GROUP: &str = "billing";

/// Options of a schedule, beside its seed.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Options {
    /// A defect that breaks one thing of the shipped code.
    pub mutant: Option<Mutant>,
    /// Whether the schedule runs without faults, and with traffic enough for O9 and O10: many keys, several partitions,
    /// handlers that yield.
    pub steady: bool,
}

impl Options {
    /// Makes options with this defect.
    #[must_use]
    pub const fn broken(mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), steady: false }
    }

    /// Leaves out faults, and judges by O9 and O10 as well.
    #[must_use]
    pub const fn steady(mut self) -> Self {
        self.steady = true;
        self
    }
}

/// A schedule's settings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    pub(super) partitions: u32,
    pub(super) nodes: usize,
    pub(super) keys: u64,
    pub(super) keyless: bool,
    pub(super) envelopes: u64,
    /// Time for which trouble may last; afterwards everything heals.
    pub(super) trouble: Duration,
    pub(super) concurrency: usize,
    pub(super) policy: FailurePolicy,
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) handler_timeout: Option<Duration>,
    pub(super) session_timeout: Duration,
    pub(super) drain_deadline: Duration,
    pub(super) commit_interval: Duration,
    pub(super) commit_every: usize,
    pub(super) handling_bytes: usize,
    pub(super) pipelined: bool,
    pub(super) shared_positions: bool,
    pub(super) copies: Copies,
    pub(super) duplicate_window: Duration,
    pub(super) latency: Latency,
    pub(super) note_bytes: usize,
    pub(super) fetch_batch: usize,
    pub(super) overshoot: usize,
    pub(super) answer_timeout: Duration,
    pub(super) budget: usize,
    pub(super) share: usize,
    pub(super) waiting: usize,
    pub(super) sealed: usize,
    /// Percent of handler calls that fail, fail for good, panic, hang.
    pub(super) failing: u64,
    pub(super) failing_for_good: u64,
    pub(super) panicking: u64,
    pub(super) hanging: u64,
    pub(super) takes: Duration,
    /// The least time of every handler. Above zero, a member has work for longer than its session.
    pub(super) slow: Duration,
    /// Whether the first calls of one envelope kill their process.
    pub(super) poison: bool,
    pub(super) chaos: Vec<Chaos>,
    pub(super) troubles: u64,
}

impl Plan {
    /// Draws a plan.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let chaos = Chaos::draw(dice);
        // A hold past the window stores copies; retention may take the originals by which readers recognise them.
        let copies = if chaos.contains(&Chaos::Truncate) || !chaos.contains(&Chaos::Hold) && dice.percent(20) {
            Copies::Dropped
        } else {
            Copies::Window
        };
        let latency = if dice.percent(50) {
            Latency::default()
        } else {
            Latency::everywhere(Wait::between(Duration::ZERO, dice.millis(1, 40)))
        };
        let slow = if dice.percent(8) { dice.millis(50, 500) } else { Duration::ZERO };
        let handler_timeout = (slow.is_zero() && dice.percent(40)).then(|| dice.millis(100, 800));
        let rate = |dice: &mut Dice, percent, most| if dice.percent(percent) { dice.between(1, most) } else { 0 };
        Self {
            partitions: u32::try_from(dice.between(1, 4)).unwrap_or(1),
            nodes: dice.index(3) + 1,
            keys: dice.between(1, 5),
            keyless: dice.percent(10),
            envelopes: dice.between(20, 120),
            trouble: dice.millis(2_000, 12_000),
            concurrency: if slow.is_zero() { dice.index(6) + 1 } else { 1 },
            policy: dice.one_of(&[
                FailurePolicy::DeadLetter,
                FailurePolicy::DeadLetter,
                FailurePolicy::Skip,
                FailurePolicy::Stop,
            ]),
            attempts: u32::try_from(dice.between(1, 4)).unwrap_or(1),
            backoff: Backoff::exponential()
                .initial(dice.millis(1, 50))
                .max(dice.millis(100, 1_000))
                .jitter(dice.one_of(&[Jitter::Full, Jitter::None])),
            handler_timeout,
            session_timeout: dice.millis(800, 3_000),
            drain_deadline: dice.millis(100, 1_500),
            commit_interval: dice.millis(5, 300),
            commit_every: dice.index(40) + 1,
            handling_bytes: if dice.percent(20) { dice.index(1_500) + 200 } else { 64 << 20 },
            pipelined: dice.percent(50),
            shared_positions: dice.percent(40),
            copies,
            duplicate_window: dice.millis(400, 4_000),
            latency,
            note_bytes: if dice.percent(30) { dice.index(3) + 51 } else { 3_072 },
            fetch_batch: dice.index(64) + 1,
            overshoot: dice.index(4),
            answer_timeout: dice.millis(50, 1_000),
            budget: if dice.percent(40) { dice.index(12) + 1 } else { 10_000 },
            share: dice.index(8) + 1,
            waiting: if dice.percent(30) { dice.index(8) + 1 } else { 10_000 },
            sealed: if dice.percent(15) { dice.index(4) + 1 } else { 10_000 },
            failing: rate(dice, 70, 40),
            failing_for_good: rate(dice, 30, 10),
            panicking: rate(dice, 30, 15),
            // Without a limit to its time a hung handler would hold its key for ever.
            hanging: if handler_timeout.is_some() { rate(dice, 60, 10) } else { 0 },
            takes: dice.one_of(&[
                Duration::ZERO,
                Duration::from_millis(5),
                Duration::from_millis(100),
                Duration::from_secs(2),
            ]),
            slow,
            poison: dice.percent(12),
            troubles: dice.between(0, 14),
            chaos,
        }
    }

    /// The plan without trouble, and with as much traffic as O9 and O10 ask for.
    pub(super) fn steady(self) -> Self {
        Self {
            partitions: 4,
            nodes: 1,
            keys: 120,
            envelopes: 400,
            concurrency: 8,
            policy: FailurePolicy::DeadLetter,
            handling_bytes: 64 << 20,
            budget: 10_000,
            waiting: 10_000,
            failing: 5,
            failing_for_good: 0,
            panicking: 0,
            hanging: 0,
            takes: Duration::from_millis(100),
            slow: Duration::ZERO,
            poison: false,
            troubles: 0,
            chaos: Vec::new(),
            ..self
        }
    }

    /// Whether so few keys can be sealed that the topic is sealed for them. Any caller that sees it unseals it. The
    /// oracle looks at each key by itself, and cannot tell that from a key that was never sealed.
    pub(super) fn seals_topic(&self) -> bool {
        self.sealed < 100
    }

    /// Whether a re-send can reach the broker after it has forgotten the first one.
    pub(super) fn copies_allowed(&self) -> bool {
        let late = [Chaos::Hold, Chaos::Delay, Chaos::Freeze];
        self.copies == Copies::Window && late.iter().any(|chaos| self.chaos.contains(chaos))
    }

    pub(super) fn world(&self) -> MemoryConfig {
        MemoryConfig::new()
            .pipelining(if self.pipelined { Pipelining::PerPartition } else { Pipelining::OnePerKey })
            .positions(if self.shared_positions { Positions::Shared } else { Positions::PerPartition })
            .copies(self.copies)
            .latency(self.latency)
            .note_bytes(self.note_bytes)
            .fetch_batch(self.fetch_batch)
            .overshoot(self.overshoot)
            .answer_timeout(self.answer_timeout)
            .max_record_bytes(4_096)
    }

    pub(super) fn topic(&self) -> TopicSpec {
        TopicSpec::new(TOPIC).partitions(self.partitions).duplicate_window(self.duplicate_window)
    }

    pub(super) fn bus(&self) -> BusConfig {
        BusConfig::new()
            .threads(Threads::Caller)
            .budget_envelopes(self.budget)
            .share(self.share)
            .waiting_limit(self.waiting)
            .sealed_limit(self.sealed)
            .resend_backoff(Duration::from_millis(5), Duration::from_millis(200))
    }

    pub(super) fn subscribe(&self) -> Subscribe {
        let options = Subscribe::to(TOPIC)
            .group(GROUP)
            .concurrency(self.concurrency)
            .attempts(self.attempts)
            .backoff(self.backoff)
            .then(self.policy)
            .on_log_reset(OnLogReset::Earliest)
            .on_data_loss(OnDataLoss::Continue)
            .session_timeout(self.session_timeout)
            .drain_deadline(self.drain_deadline)
            .commit_interval(self.commit_interval)
            .commit_every(self.commit_every)
            .budget_bytes(self.handling_bytes)
            .stall_after(Duration::from_millis(700));
        match self.handler_timeout {
            Some(limit) => options.handler_timeout(limit),
            None => options,
        }
    }
}

//! One schedule, from its seed to its judgement.

use std::collections::BTreeSet;
use std::time::Duration;

use eventbus_core::backend::ensure_topic;
use eventbus_core::note::Note;
use tokio::time::{Instant, sleep};

use super::chaos::Chaos;
use super::coverage::Coverage;
use super::plan::{GROUP, Options, Plan, TOPIC};
use super::sim::Sim;
use super::watch::expected_end;
use crate::harness::{BackendReader, lock, read_back};
use crate::history::{EndOutcome, History, Kind, PublishOutcome, Recorder};
use crate::oracle::{AfterRefusal, Expectations, Oracle, Verdict};

/// Time in which a healed group must become quiet.
const PATIENCE: Duration = Duration::from_secs(180);

/// The outcome of a schedule.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The history of the schedule.
    pub history: History,
    /// The oracle's verdict on it.
    pub verdict: Verdict,
    /// Trouble outside the rules: a subscription that ended for no reason that the schedule gives, a publish that was
    /// never resolved.
    pub unexpected: Vec<String>,
    /// The faults and branches that were met.
    pub coverage: Coverage,
    /// The settings of the schedule.
    pub plan: Plan,
}

impl Outcome {
    /// Whether nothing was refuted.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        self.verdict.is_legal() && self.unexpected.is_empty()
    }
}

/// Runs the schedule of a seed.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn simulate(seed: u64, options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    #[allow(clippy::expect_used)] // a test's set-up
    let runtime = runtime.expect("a current-thread runtime");
    runtime.block_on(Box::pin(async move {
        let mut sim = Sim::new(seed, options);
        sim.run().await;
        sim.judge().await
    }))
}

impl Sim {
    async fn run(&mut self) {
        if self.plan.pipelined {
            self.met.see("pipelined");
        }
        if self.plan.shared_positions {
            self.met.see("positions shared");
        }
        if let Err(error) = ensure_topic(&*self.control, &self.plan.topic()).await {
            return self.surprise("the topic", &error);
        }
        for _ in 0..self.plan.nodes {
            self.start_node().await;
        }
        for (at, action) in self.actions() {
            tokio::time::sleep_until(at).await;
            self.reap();
            match action {
                Action::Publish => self.publish(),
                Action::Trouble => {
                    if !self.plan.chaos.is_empty() {
                        let chaos = self.plan.chaos[self.dice.index(self.plan.chaos.len())];
                        self.trouble(chaos).await;
                    }
                }
                Action::Replace => self.replace().await,
            }
        }
        self.settle().await;
        for live in std::mem::take(&mut self.nodes) {
            if let Err(error) = live.node.bus().close(Duration::from_secs(20)).await
                && !expected_end(&error, self.plan.policy)
            {
                self.surprise("a close", &error);
            }
        }
    }

    /// The actions of a schedule, by their time. Publishes come in bursts.
    fn actions(&mut self) -> Vec<(Instant, Action)> {
        let (begin, most) = (Instant::now(), u64::try_from(self.plan.trouble.as_millis()).unwrap_or(1));
        let mut actions = Vec::new();
        let mut at = begin;
        for _ in 0..self.plan.envelopes {
            if self.dice.percent(30) {
                at = begin + self.dice.millis(0, most);
            }
            actions.push((at, Action::Publish));
        }
        for _ in 0..self.plan.troubles {
            actions.push((begin + self.dice.millis(0, most), Action::Trouble));
        }
        for tenth in 1..10 {
            actions.push((begin + Duration::from_millis(most * tenth / 10), Action::Replace));
        }
        actions.sort_by_key(|(at, _)| *at);
        actions
    }

    /// Heals everything, and waits until all is handled.
    async fn settle(&mut self) {
        self.script.calm();
        self.calm = true;
        self.world.faults().heal_all();
        let begin = Instant::now();
        let mut quiet = 0;
        while begin.elapsed() < PATIENCE && quiet < 2 {
            self.reap();
            self.replace().await;
            sleep(Duration::from_millis(300)).await;
            let settled = self.unresolved() == 0 && self.lag().await == Some(0);
            quiet = if settled { quiet + 1 } else { 0 };
        }
        let pending = self.unresolved();
        if pending > 0 {
            lock(&self.unexpected).push(format!("{pending} publishes were never resolved"));
        }
    }

    async fn lag(&self) -> Option<u64> {
        let described = self.control.describe_group(&self.topic, &self.group).await.ok()?;
        let mut lag = 0;
        for partition in &described.partitions {
            // Progress in an earlier log says nothing about this one.
            let committed = partition.committed.as_ref()?;
            let note = Note::decode(&committed.note).ok()?;
            if note.incarnation != partition.log.incarnation || partition.owner.is_none() {
                return None;
            }
            // Records that retention took may be in a member's hands yet.
            if committed.next < partition.log.first {
                return None;
            }
            lag += partition.lag;
        }
        Some(lag)
    }

    async fn judge(mut self) -> Outcome {
        let groups = [self.group.clone()];
        match read_back(&BackendReader::new(self.control.clone()), &self.topic, &groups).await {
            Ok(read) => read.kinds.into_iter().for_each(|kind| self.recorder.record(0, kind)),
            Err(error) => self.surprise("reading back", &error),
        }
        let history = self.recorder.take();
        let grace = self.plan.session_timeout + self.plan.drain_deadline + Duration::from_secs(5);
        let mut expect = Expectations::new(u32::try_from(self.plan.concurrency).unwrap_or(u32::MAX))
            .quiet()
            .log_read()
            .strict_sessions(u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX))
            .group(TOPIC, GROUP);
        if self.plan.copies_allowed() {
            expect = expect.copies_allowed();
        }
        if self.plan.seals_topic() {
            expect = expect.after_refusal(TOPIC, AfterRefusal::Continue);
        }
        if self.options.steady {
            expect = expect.overlap().spread(100, 2);
        }
        let verdict = Oracle::judge(&history, &expect);
        self.count(&history, &verdict);
        let coverage = Coverage::of_one(self.met.take());
        let unexpected = std::mem::take(&mut *lock(&self.unexpected));
        Outcome { history, verdict, unexpected, coverage, plan: self.plan }
    }

    /// Counts the things that only the history tells.
    fn count(&mut self, history: &History, verdict: &Verdict) {
        for sight in self.processes.iter().flat_map(|process| process.sights().into_keys()) {
            self.met.see(sight);
        }
        let counts = &verdict.counts;
        for (count, name) in [
            (counts.unknown_stored, "unknown at the end, and stored"),
            (counts.repeats, "repeated after a session"),
            (counts.retries, "retry"),
            (counts.exempt_overlaps, "superseded while running"),
        ] {
            if count > 0 {
                self.met.see(name);
            }
        }
        let mut killed: BTreeSet<u32> = BTreeSet::new();
        for event in &history.events {
            match &event.kind {
                Kind::End { outcome: EndOutcome::Failed, .. } => self.met.see("handler failed"),
                Kind::End { outcome: EndOutcome::Panicked, .. } => self.met.see("handler panicked"),
                Kind::End { outcome: EndOutcome::Abandoned, .. } => self.met.see("handler abandoned"),
                Kind::Published { outcome: PublishOutcome::Confirmed { duplicate: true, .. }, .. } => {
                    self.met.see("duplicate recognised");
                    self.met.see("unknown resolved");
                }
                Kind::CommitConfirmed(commit) if !commit.beyond.is_empty() => {
                    self.met.see("finished beyond the watermark");
                }
                Kind::ProcessKilled { victim } => drop(killed.insert(*victim)),
                _ => {}
            }
        }
        if self.plan.poison && !killed.is_empty() && !self.plan.chaos.contains(&Chaos::Kill) {
            self.met.see("killed by its own handler");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Publish,
    Trouble,
    Replace,
}

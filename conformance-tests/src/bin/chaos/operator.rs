//! An operator's hands: limits changed, records purged, readers and progress removed, permissions taken and given back.
//!
//! Each is matched by what it has to bring about: a refusal with the broker's words, members that end with the error
//! that says why, a loss that is told - or by nothing at all. What purges took is judged by the oracle with the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use conformance_tests::history::Kind;
use conformance_tests::members::MemberError;
use conformance_tests::suite::{Failure, FaultError, Right};
use eventbus_core::{ErrorKind, Position};
use rand::Rng;
use rand::seq::SliceRandom;

use super::load::{Refusals, Refused};
use super::{Chaos, GROUP, PARTITIONS, TOPIC, wrong};

/// Time in which a hand must show its effect.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks for it.
const LOOK: Duration = Duration::from_millis(100);

/// A run of this length must have seen every hand.
const LONG: Duration = Duration::from_secs(120);

/// A limit below every default, and above the load's records and batches of one.
const LOW: usize = 4_096;

/// A limit above it, and a record between the two.
const HIGH: usize = 1_000_000;
const LARGE: usize = 20_000;

/// Records that a group has to have before it when some of them are purged.
const BEHIND: u64 = 60;

/// A hand of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hand {
    LimitLowered,
    RetentionSet,
    HandledPurged,
    UnhandledPurged,
    ReadersRemoved,
    ProgressRemoved,
    PublishTaken,
    CommitTaken,
}

impl Hand {
    /// Those that a broker of this kind has.
    fn all(kafka: bool) -> Vec<Self> {
        use Hand::{
            CommitTaken, HandledPurged, LimitLowered, ProgressRemoved, PublishTaken, ReadersRemoved, RetentionSet,
            UnhandledPurged,
        };
        let mut hands = vec![LimitLowered, RetentionSet, HandledPurged, UnhandledPurged, PublishTaken, CommitTaken];
        if !kafka {
            hands.extend([ReadersRemoved, ProgressRemoved]);
        }
        hands
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::LimitLowered => "largest record lowered and raised",
            Self::RetentionSet => "retention set",
            Self::HandledPurged => "handled records purged",
            Self::UnhandledPurged => "unhandled records purged",
            Self::ReadersRemoved => "readers removed",
            Self::ProgressRemoved => "the groups' bucket removed",
            Self::PublishTaken => "right to publish taken and given back",
            Self::CommitTaken => "right to commit taken and given back",
        }
    }
}

/// What the operator did, and what was told of it.
#[derive(Debug)]
pub(crate) struct Operator {
    kafka: bool,
    /// Hands still to come in this round.
    round: Vec<Hand>,
    pub(crate) made: BTreeMap<&'static str, u32>,
    pub(crate) told: BTreeMap<&'static str, u32>,
    /// From when to when nobody was allowed to publish.
    denied: Vec<(Instant, Instant)>,
    /// When records were purged.
    purged: Vec<Instant>,
    /// The committed positions, as they were read before the hand before.
    committed: Vec<u64>,
}

impl Operator {
    pub(crate) fn new(kafka: bool) -> Self {
        let (round, committed) = (Vec::new(), Vec::new());
        let (made, told) = (BTreeMap::new(), BTreeMap::new());
        Self { kafka, round, made, told, denied: Vec::new(), purged: Vec::new(), committed }
    }

    fn made(&self, hand: Hand) -> u32 {
        self.made.get(hand.as_str()).copied().unwrap_or_default()
    }

    /// Checks that every hand was made, in a run that was long enough, and that publishes were refused only for a missing
    /// right, or behind such a one.
    pub(crate) fn check(&self, time: Duration, refusals: &Refusals) -> Result<(), Failure> {
        let missing = Hand::all(self.kafka).into_iter().find(|hand| self.made(*hand) == 0);
        if let Some(hand) = missing.filter(|_| time >= LONG) {
            return Err(wrong(format!("never in {} s: {}", time.as_secs(), hand.as_str())));
        }
        let refused = refusals.all();
        let id = |refused: &Refused| refused.error.refusal().map(|refusal| refusal.id.clone());
        // A refusal may be told late, for a publish that was called while the right was missing.
        let by_right = |refused: &&Refused| {
            let denied = |(from, to): &(Instant, Instant)| refused.told >= *from && refused.called <= *to;
            let purged = |at: &Instant| refused.called <= *at && *at <= refused.told;
            let told = match refused.error.kind() {
                ErrorKind::PermissionDenied => true,
                // Refused when it was sent again, and the log has lost what would tell whether it was stored before.
                ErrorKind::Unknown => self.purged.iter().any(purged),
                _ => false,
            };
            told && self.denied.iter().any(denied)
        };
        let roots: BTreeSet<String> = refused.iter().filter(by_right).filter_map(id).collect();
        let explained = |one: &&Refused| match one.error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::Unknown => by_right(one),
            ErrorKind::Cascaded | ErrorKind::KeySealed => id(one).is_some_and(|root| roots.contains(&root)),
            _ => false,
        };
        match refused.iter().find(|one| !explained(one)) {
            Some(one) => Err(wrong(format!("a publish was refused for no reason: {}", one.error))),
            None => Ok(()),
        }
    }
}

/// Asks the broker again while it is not ready for it.
async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, FaultError>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Err(FaultError::Failed(_)) if began.elapsed() < PATIENCE => tokio::time::sleep(LOOK).await,
            done => return Ok(done?),
        }
    }
}

impl Chaos {
    /// Makes the operator's next hand.
    pub(crate) async fn hand(&mut self) -> Result<(), Failure> {
        let Some(hand) = self.next_hand() else { return Ok(()) };
        let committed = self.progress().await?.into_iter().map(|(next, _)| next).collect();
        match hand {
            Hand::LimitLowered => self.limit_lowered().await?,
            Hand::RetentionSet => self.retention_set().await?,
            Hand::HandledPurged => self.handled_purged().await?,
            Hand::UnhandledPurged => self.unhandled_purged().await?,
            Hand::ReadersRemoved => self.readers_removed().await?,
            Hand::ProgressRemoved => self.progress_removed().await?,
            Hand::PublishTaken => self.publish_taken().await?,
            Hand::CommitTaken => self.commit_taken().await?,
        }
        if let Some(operator) = &mut self.operator {
            *operator.made.entry(hand.as_str()).or_default() += 1;
            operator.committed = if hand == Hand::ProgressRemoved { Vec::new() } else { committed };
        }
        Ok(())
    }

    /// Each once a round, in an order that is drawn. Progress is removed once, in the middle of the run: all that the
    /// log holds is then handled again.
    fn next_hand(&mut self) -> Option<Hand> {
        let late = self.began.elapsed() > self.time / 2;
        let operator = self.operator.as_mut()?;
        let hands = Hand::all(operator.kafka);
        if late && hands.contains(&Hand::ProgressRemoved) && operator.made(Hand::ProgressRemoved) == 0 {
            return Some(Hand::ProgressRemoved);
        }
        if operator.round.is_empty() {
            operator.round = hands;
            operator.round.retain(|hand| *hand != Hand::ProgressRemoved);
            operator.round.shuffle(&mut self.draws);
        }
        operator.round.pop()
    }

    fn told(&mut self, what: &'static str, times: u32) {
        if let Some(operator) = &mut self.operator {
            *operator.told.entry(what).or_default() += times;
        }
    }

    /// The group's committed position and the log's end, of each partition.
    async fn progress(&self) -> Result<Vec<(u64, u64)>, Failure> {
        loop {
            if let Ok(described) = self.run.described(TOPIC, GROUP).await? {
                let of = |committed: Option<u64>, end| Some((committed?, end));
                let partitions = described.partitions.iter();
                let known: Option<Vec<_>> = partitions
                    .map(|one| of(one.committed.as_ref().map(|found| found.next.get()), one.log.end.get()))
                    .collect();
                if let Some(known) = known {
                    return Ok(known);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Publishes a large record. Returns why it was not stored, if it was not.
    async fn publish_large(&self) -> Option<eventbus_core::Error> {
        self.publisher.publisher().publish(TOPIC, "large", LARGE).await.err()
    }

    /// A lower limit hurts no small record, also where many go together. A large one is refused, until it is raised.
    async fn limit_lowered(&mut self) -> Result<(), Failure> {
        let fixture = self.run.fixture().clone();
        insist(|| fixture.operator().limit_records(TOPIC, LOW)).await?;
        tokio::time::sleep(self.pause(200, 1_000)).await;
        match self.publish_large().await {
            Some(error) if error.kind() == ErrorKind::TooLarge => self.told("publish refused as too large", 1),
            other => return Err(wrong(format!("a record of {LARGE} bytes was to be too large: {other:?}"))),
        }
        insist(|| fixture.operator().limit_records(TOPIC, HIGH)).await?;
        let began = Instant::now();
        while let Some(error) = self.publish_large().await {
            if error.kind() != ErrorKind::TooLarge || began.elapsed() > PATIENCE {
                return Err(wrong(format!("the limit was raised: {error}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// A time that no record has reached yet strikes none.
    async fn retention_set(&mut self) -> Result<(), Failure> {
        let long = Duration::from_secs(3_600 * self.draws.random_range(1..200));
        let fixture = self.run.fixture().clone();
        insist(|| fixture.operator().retain(TOPIC, long)).await
    }

    async fn purge(&mut self, partition: u32, first: u64) -> Result<(), Failure> {
        self.run.fault("records purged", false);
        self.run.note(Kind::Purged { topic: TOPIC.into(), partition, first });
        let fixture = self.run.fixture().clone();
        insist(|| fixture.operator().purge(TOPIC, partition, Position::new(first))).await?;
        if let Some(operator) = &mut self.operator {
            operator.purged.push(Instant::now());
        }
        Ok(())
    }

    /// Purges what was handled: nobody may be told of a loss. Where partitions share positions, all must have come so far.
    async fn handled_purged(&mut self) -> Result<(), Failure> {
        let partition = self.draws.random_range(0..PARTITIONS);
        let Some(operator) = &self.operator else { return Ok(()) };
        // What was read long ago is on record as committed by now.
        let read = match operator.committed.is_empty() {
            true => {
                let now: Vec<u64> = self.progress().await?.into_iter().map(|(next, _)| next).collect();
                tokio::time::sleep(Duration::from_secs(1)).await;
                now
            }
            false => operator.committed.clone(),
        };
        let handled = if operator.kafka { read.get(partition as usize) } else { read.iter().min() };
        self.purge(partition, handled.copied().unwrap_or_default()).await
    }

    /// Purges what the group has not handled while it is away: who owns the partition next tells it.
    async fn unhandled_purged(&mut self) -> Result<(), Failure> {
        let partition = self.draws.random_range(0..PARTITIONS);
        let killed = self.draws.random();
        self.away(killed).await?;
        let (next, end) = loop {
            let known = self.progress().await?;
            match known.get(partition as usize) {
                Some((next, end)) if end.saturating_sub(*next) >= self.behind() => break (*next, *end),
                _ => tokio::time::sleep(LOOK).await,
            }
        };
        let first = if self.draws.random() { end } else { next + (end - next) / 2 };
        self.purge(partition, first).await?;
        self.join_again(|_| ()).await?;
        self.until_lost(partition, first).await?;
        self.told("unhandled records told as lost", 1);
        Ok(())
    }

    /// Positions that a group has to have before it. Where partitions share them, one in so many is a partition's own.
    fn behind(&self) -> u64 {
        match &self.operator {
            Some(operator) if !operator.kafka => BEHIND * u64::from(PARTITIONS),
            _ => BEHIND,
        }
    }

    /// Waits until a member tells a loss below this position.
    async fn until_lost(&self, partition: u32, first: u64) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for member in &self.members {
                let history = member.process.history().map_err(wrong)?;
                let told = |kind: &Kind| match kind {
                    Kind::DataLost { partition: of, from, .. } => *of == partition && *from < first,
                    _ => false,
                };
                if history.events.iter().any(|event| told(&event.kind)) {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(wrong(format!("unhandled records of partition {partition} below {first} were purged, and nobody tells it")))
    }

    /// Readers are made again, and nothing is lost.
    async fn readers_removed(&mut self) -> Result<(), Failure> {
        self.run.fault("readers removed", false);
        let began = Instant::now();
        let fixture = self.run.fixture().clone();
        while insist(|| fixture.operator().remove_readers(TOPIC)).await? == 0 {
            if began.elapsed() > PATIENCE {
                return Err(wrong("a group is at work, and has no readers"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// All members end, and so does who comes after, until one is told to begin anew. It handles all that is there.
    async fn progress_removed(&mut self) -> Result<(), Failure> {
        let what = "the groups' progress removed";
        self.run.fault(what, true);
        let fixture = self.run.fixture().clone();
        insist(|| fixture.operator().remove_progress(TOPIC)).await?;
        let members = u32::try_from(self.members.len()).unwrap_or_default();
        self.all_end("log reset").await?;
        match self.start(|_| ()).await? {
            Err(MemberError::Said { said: Some(said), .. }) if said.starts_with("ended: log reset") => {}
            other => return Err(wrong(format!("a member was to be refused, as its progress is gone: {other:?}"))),
        }
        self.told("member ended, as its progress is gone", members + 1);
        self.join_again(|spec| spec.begins_anew = true).await?;
        self.run.healed(what);
        Ok(())
    }

    /// Publishes are refused while the right is missing, and then no more.
    async fn publish_taken(&mut self) -> Result<(), Failure> {
        let (what, taken) = ("the right to publish taken", Instant::now());
        self.run.fault(what, true);
        let fixture = self.run.fixture().clone();
        insist(|| fixture.operator().permit(TOPIC, GROUP, Right::Publish, false)).await?;
        let refused = loop {
            let refusals = self.refusals.all();
            let by_right = |error: &eventbus_core::Error| error.kind() == ErrorKind::PermissionDenied;
            let count = refusals.iter().filter(|refused| refused.told > taken && by_right(&refused.error)).count();
            if count > 0 {
                break count;
            }
            if taken.elapsed() > PATIENCE {
                return Err(wrong("the right to publish is missing, and nobody is refused"));
            }
            tokio::time::sleep(LOOK).await;
        };
        tokio::time::sleep(self.pause(100, 1_000)).await;
        insist(|| fixture.operator().permit(TOPIC, GROUP, Right::Publish, true)).await?;
        let began = Instant::now();
        while let Err(error) = self.publisher.publisher().publish(TOPIC, "probe", 0).await {
            if error.kind() != ErrorKind::PermissionDenied || began.elapsed() > PATIENCE {
                return Err(wrong(format!("the right to publish is given back: {error}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.run.healed(what);
        if let Some(operator) = &mut self.operator {
            operator.denied.push((taken, Instant::now()));
        }
        self.told("publish refused, as a right was missing", u32::try_from(refused).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Members that may not store their progress end, and say why.
    async fn commit_taken(&mut self) -> Result<(), Failure> {
        let what = "the right to commit taken";
        self.run.fault(what, true);
        let fixture = self.run.fixture().clone();
        insist(|| fixture.operator().permit(TOPIC, GROUP, Right::Commit, false)).await?;
        let members = u32::try_from(self.members.len()).unwrap_or_default();
        self.all_end("permission denied").await?;
        self.told("member ended, as a right was missing", members);
        insist(|| fixture.operator().permit(TOPIC, GROUP, Right::Commit, true)).await?;
        self.join_again(|_| ()).await?;
        self.run.healed(what);
        Ok(())
    }
}

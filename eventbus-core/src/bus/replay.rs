//! Dead letters, brought back: read, replayed to the group that gave up on them, or purged (S2).
//!
//! **Invariants.**
//!
//! - A letter is done when its replay is confirmed, or when it is purged, and not before. Done letters are the progress
//!   of a group of the dead-letter topic, [`GROUP`], kept as all progress is (S3): an interrupted replay goes on where
//!   it stood, and repeats at most what it had not committed. Letters stay in their topic until the topic is deleted or
//!   retention takes them.
//! - The letters of a key come back in the order in which they were written. A letter that cannot be published again
//!   holds back the later letters of its key.
//! - All other letters, of other keys or written meanwhile, stay as they are: they wait in back-off, without a slot,
//!   and are let go unfinished at the end.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::EventBus;
use super::ext::EventBusExt;
use crate::model::{Error, ErrorKind, Group, Key, Position, Receipt, Result, Topic};
use crate::runtime::{Backoff, Jitter, Mutex};
use crate::subscribe::{
    DeadLetter, Delivery, FailurePolicy, FinishedSet, Handler, HandlerError, Note, OnDataLoss, OnLogReset, StartFrom,
    Subscribe, Subscription, dead_letter,
};

/// The group of a dead-letter topic whose progress says which letters are done.
pub const GROUP: &str = "replay";

/// The concurrency of a replay, in letters.
const AT_ONCE: usize = 64;
/// The interval between looks at whether all letters are read or done.
const LOOK: Duration = Duration::from_millis(20);
/// The back-off of letters that a replay leaves alone: longer than any replay.
const PUT_OFF: Duration = Duration::from_secs(24 * 3_600);
/// The deadline of the drain that ends a subscription to dead letters.
const GOODBYE: Duration = Duration::from_secs(10);
/// The window and the byte budget of a replay, both far above the defaults: letters that are put off take room, too.
const WINDOW: usize = 10_000_000;
const BYTES: usize = 1 << 30;

/// A dead letter and its place in the dead-letter topic.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Letter {
    /// The partition in the dead-letter topic.
    pub partition: u32,
    /// The position in that partition.
    pub position: Position,
    /// The letter: the original envelope, where it was, and the last error.
    pub letter: DeadLetter,
}

impl Letter {
    fn read(delivery: &Delivery) -> Result<Self> {
        let letter = DeadLetter::read(delivery.envelope())?;
        Ok(Self { partition: delivery.partition(), position: delivery.position(), letter })
    }

    fn key(&self) -> Option<&Key> {
        self.letter.envelope.key()
    }
}

/// The counts of a replay or a purge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Letters that are done: replayed and confirmed, or purged.
    pub done: u64,
    /// Letters that could not be published again.
    pub failed: u64,
    /// Letters held back behind one of their key that failed.
    pub held_back: u64,
}

/// A callback that is told of each letter when it is done (with the receipt of its replay, or `None` for a purge) or
/// fails.
pub type Tell = Arc<dyn Fn(&Letter, Result<Option<&Receipt>, &Error>) + Send + Sync>;

/// The dead letters of one topic and group.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    bus: Arc<dyn EventBus>,
    source: Topic,
    letters: Topic,
}

impl DeadLetters {
    /// Names the dead letters of this topic and group. Asks the broker nothing.
    ///
    /// # Errors
    /// `InvalidName` for a name that is not valid, or for names that are too long together.
    pub fn of(bus: Arc<dyn EventBus>, topic: &str, group: &str) -> Result<Self> {
        let (source, group) = (topic.parse::<Topic>()?, group.parse::<Group>()?);
        let letters = dead_letter::topic_of(&source, &group)?;
        Ok(Self { bus, source, letters })
    }

    /// Returns the dead-letter topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.letters
    }

    /// Reads the letters that are not done, of one key or of all, as of this call. Letters of a partition come in their
    /// order. Empty where the group has never had a letter.
    ///
    /// # Errors
    /// `UnknownTopic` where the source topic does not exist, and the broker's errors. Not cancel safe: dropping the
    /// future leaves a group of a random name on the dead-letter topic.
    pub async fn read(&self, key: Option<&Key>) -> Result<Vec<Letter>> {
        let described = match self.bus.describe_topic(self.letters.as_str()).await {
            Ok(described) => described,
            Err(error) if error.kind() == ErrorKind::UnknownTopic => {
                return self.bus.describe_topic(self.source.as_str()).await.map(|_| Vec::new());
            }
            Err(error) => return Err(error),
        };
        let done = self.done().await?;
        let reader = Arc::new(Reader { read: Mutex::new(Vec::new()) });
        let group = format!("read-{}", uuid::Uuid::now_v7().simple());
        let from = done.iter().map(|(partition, (next, _))| (*partition, *next)).collect();
        let options = Subscribe::to(self.letters.as_str()).group(&group).start(StartFrom::Positions(from));
        let subscription = self.bus.subscribe(undisturbed(options).then(FailurePolicy::Skip), reader.clone()).await?;
        let ends: HashMap<u32, Position> = (0..).zip(described.logs()?.iter().map(|log| log.end)).collect();
        let read = until(&subscription, || is_through(&subscription, &ends)).await;
        let closed = subscription.drain(GOODBYE).await;
        if let Err(error) = self.bus.delete_group(self.letters.as_str(), &group).await {
            tracing::warn!(target: "eventbus", %error, "a reader's group stays on a dead-letter topic");
        }
        read.and(closed)?;
        let mut letters = std::mem::take(&mut *reader.read.lock());
        letters.retain(|letter| {
            let is_done = |(next, finished): &(Position, FinishedSet)| {
                letter.position < *next || finished.contains(letter.position)
            };
            let wanted = key.is_none_or(|key| letter.key() == Some(key));
            wanted && !done.get(&letter.partition).is_some_and(is_done)
        });
        letters.sort_by_key(|letter| (letter.partition, letter.position));
        Ok(letters)
    }

    /// Publishes the letters that are not done, of one key or of all, to their source topic again, marked as replayed.
    /// This group handles them after what it has handled already; other groups finish them unhandled. Letters written
    /// meanwhile are not replayed.
    ///
    /// # Errors
    /// As [`read`](Self::read); `Overloaded` where letters of other keys take all room. The error of a single letter
    /// goes to `tell`, and is counted. Cancel safe but for the remark of `read`: letters that were confirmed and not
    /// committed are replayed again.
    pub async fn replay(&self, key: Option<&Key>, tell: Tell) -> Result<Replayed> {
        self.work(key, Action::Replay(self.bus.clone(), self.source.clone()), tell).await
    }

    /// Counts the letters that are not done, of one key or of all, as done: no later call reads or replays them. Their
    /// records stay in the dead-letter topic until it is deleted, or retention takes them.
    ///
    /// # Errors
    /// As [`replay`](Self::replay).
    pub async fn purge(&self, key: Option<&Key>, tell: Tell) -> Result<Replayed> {
        self.work(key, Action::Purge, tell).await
    }

    async fn work(&self, key: Option<&Key>, action: Action, tell: Tell) -> Result<Replayed> {
        let letters = self.read(key).await?;
        if letters.is_empty() {
            return Ok(Replayed::default());
        }
        let work = Arc::new(Work::new(&letters, action, tell));
        drop(letters);
        let backoff = Backoff::exponential().initial(PUT_OFF).max(PUT_OFF).jitter(Jitter::None);
        let options = Subscribe::to(self.letters.as_str()).group(GROUP).concurrency(AT_ONCE).window(WINDOW);
        let options = undisturbed(options).budget_bytes(BYTES).attempts(u32::MAX).backoff(backoff);
        let subscription = self.bus.subscribe(options.then(FailurePolicy::Stop), work.clone()).await?;
        let mut left = work.left.subscribe();
        let through = || Ok(*left.borrow_and_update() == 0 || is_stuck(&subscription)?);
        let worked = until(&subscription, through).await;
        subscription.drain(GOODBYE).await?;
        worked.map(|()| work.outcome.lock().clone())
    }

    /// Returns the progress of [`GROUP`] by partition: the watermark, and the set of letters finished beyond it.
    async fn done(&self) -> Result<HashMap<u32, (Position, FinishedSet)>> {
        let described = match self.bus.describe_group(self.letters.as_str(), GROUP).await {
            Ok(described) => described,
            Err(error) if error.kind() == ErrorKind::UnknownGroup => return Ok(HashMap::new()),
            Err(error) => return Err(error),
        };
        let done = described.partitions.into_iter().filter_map(|partition| {
            let committed = partition.committed?;
            let note = Note::decode(&committed.note).ok().filter(|note| note.watermark == committed.next);
            Some((partition.partition, (committed.next, note.unwrap_or_default().finished)))
        });
        Ok(done.collect())
    }
}

/// Has a subscription to dead letters go on after lost records and after a log reset.
fn undisturbed(options: Subscribe) -> Subscribe {
    options.on_data_loss(OnDataLoss::Continue).on_log_reset(OnLogReset::Earliest)
}

/// Polls `is_so` until it is true. An error where the subscription ends by itself before.
async fn until(subscription: &Subscription, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    loop {
        tokio::select! {
            biased;
            ended = subscription.closed() => return ended.and(Err(Error::new(ErrorKind::Closed, "the bus was closed"))),
            () = tokio::time::sleep(LOOK) => {}
        }
        if is_so()? {
            return Ok(());
        }
    }
}

/// Whether every partition's watermark has reached the partition's end in `ends`.
fn is_through(subscription: &Subscription, ends: &HashMap<u32, Position>) -> Result<bool> {
    let views = subscription.inspect();
    let reached = |(partition, end): (&u32, &Position)| {
        views.iter().any(|view| view.partition == *partition && view.watermark >= *end)
    };
    Ok(ends.iter().all(reached))
}

/// Fails with `Overloaded` where letters that are put off take all room, so that nothing more can come; else returns
/// false.
fn is_stuck(subscription: &Subscription) -> Result<bool> {
    let views = subscription.inspect();
    if views.iter().any(|view| view.full) && views.iter().all(|view| view.running == 0) {
        let message = "letters of other keys take all room; replay or purge those first";
        return Err(Error::new(ErrorKind::Overloaded, message).with("topic", subscription.topic()));
    }
    Ok(false)
}

struct Reader {
    read: Mutex<Vec<Letter>>,
}

#[async_trait]
impl Handler for Reader {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        match Letter::read(&delivery) {
            Ok(letter) => self.read.lock().push(letter),
            Err(error) => tracing::warn!(target: "eventbus", %error, "a record among dead letters is none"),
        }
        Ok(())
    }
}

enum Action {
    Replay(Arc<dyn EventBus>, Topic),
    Purge,
}

/// The handler of a replay or a purge, with the letters that it works on.
struct Work {
    action: Action,
    tell: Tell,
    wanted: HashSet<(u32, Position)>,
    /// Letters left of each key. Letters without a key are related to nothing, and not counted here.
    keys: Mutex<HashMap<Key, u64>>,
    outcome: Mutex<Replayed>,
    left: watch::Sender<u64>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("left", &*self.left.borrow()).finish_non_exhaustive()
    }
}

impl Work {
    fn new(letters: &[Letter], action: Action, tell: Tell) -> Self {
        let mut keys = HashMap::new();
        for key in letters.iter().filter_map(Letter::key) {
            *keys.entry(key.clone()).or_default() += 1;
        }
        Self {
            action,
            tell,
            wanted: letters.iter().map(|letter| (letter.partition, letter.position)).collect(),
            keys: Mutex::new(keys),
            outcome: Mutex::default(),
            left: watch::Sender::new(letters.len() as u64),
        }
    }

    async fn act(&self, letter: &Letter) -> Result<Option<Receipt>> {
        match &self.action {
            Action::Purge => Ok(None),
            Action::Replay(bus, topic) => {
                bus.publish_confirmed(topic.as_str(), letter.letter.to_replay()?).await.map(Some)
            }
        }
    }

    /// Counts a letter as done or failed. A failure also settles the letters of its key behind it, which are held back.
    fn settle(&self, letter: &Letter, is_done: bool) {
        let mut behind = 0;
        if let Some(key) = letter.key() {
            let mut keys = self.keys.lock();
            let left = keys.get(key).copied().unwrap_or_default().saturating_sub(1);
            behind = if is_done { 0 } else { left };
            keys.insert(key.clone(), left - behind);
        }
        let mut outcome = self.outcome.lock();
        outcome.done += u64::from(is_done);
        outcome.failed += u64::from(!is_done);
        outcome.held_back += behind;
        drop(outcome);
        self.left.send_modify(|left| *left = left.saturating_sub(1 + behind));
    }
}

#[async_trait]
impl Handler for Work {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        if !self.wanted.contains(&(delivery.partition(), delivery.position())) {
            return Err(HandlerError::retry("not asked for"));
        }
        let letter = Letter::read(&delivery).map_err(HandlerError::retry)?;
        match self.act(&letter).await {
            Ok(receipt) => {
                (self.tell)(&letter, Ok(receipt.as_ref()));
                self.settle(&letter, true);
                Ok(())
            }
            Err(error) => {
                (self.tell)(&letter, Err(&error));
                self.settle(&letter, false);
                Err(HandlerError::retry(error))
            }
        }
    }
}

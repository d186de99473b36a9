//! One process of a run: its number in the history, and whether it is still alive.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::history::{CallIds, Kind, Recorder};

/// A process as the history knows it. Several live in one simulation; on real brokers each test program is one.
#[derive(Debug)]
pub struct Process {
    recorder: Arc<dyn Recorder>,
    number: u32,
    /// Read-locked while something is recorded: no record of a process stands behind its kill in the history.
    alive: RwLock<bool>,
    seeking: AtomicBool,
    death: Notify,
    calls: CallIds,
    resets: Mutex<BTreeSet<(String, String, u32)>>,
    offers: Mutex<BTreeMap<(String, String), Offer>>,
    sights: Mutex<BTreeMap<&'static str, u64>>,
    letters: Mutex<BTreeSet<(String, String, u32, u64)>>,
    /// Shared by the processes of a run.
    epochs: Arc<Epochs>,
}

/// Claims on record, by topic, group and partition.
pub(super) type Epochs = Mutex<BTreeMap<(String, String, u32), Claims>>;

/// The claims of a partition in a group.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The highest epoch of a session.
    highest: u64,
    /// Claims that began elsewhere than where their group stood, and whose answer has not come: epoch, member, and why.
    /// Such a claim may be stored all the same; an owner that finds it begins there.
    unanswered: Vec<(u64, String, Elsewhere)>,
}

/// The reason why a claim begins elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// The subscription sought.
    Seek,
    /// The log is another one.
    Reset,
}

/// A publish under way, found by topic and envelope id.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) call: u64,
    pub(super) key: String,
    pub(super) number: u64,
    pub(super) told: bool,
}

impl Process {
    /// Begins a process. Numbers are not used twice in a history; 0 is the test itself.
    #[must_use]
    pub fn start(recorder: Arc<dyn Recorder>, number: u32) -> Arc<Self> {
        Self::among(recorder, number, Arc::default())
    }

    /// Begins a process that shares its knowledge of epochs with others.
    pub(super) fn among(recorder: Arc<dyn Recorder>, number: u32, epochs: Arc<Epochs>) -> Arc<Self> {
        recorder.record(number, Kind::ProcessStarted);
        Arc::new(Self {
            recorder,
            number,
            alive: RwLock::new(true),
            death: Notify::new(),
            seeking: AtomicBool::new(false),
            calls: CallIds::new(),
            resets: Mutex::default(),
            offers: Mutex::default(),
            sights: Mutex::default(),
            letters: Mutex::default(),
            epochs,
        })
    }

    /// The number of the process in the history.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether the process was not killed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        *self.alive.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the process, as far as the history and the broker can see: its handlers end here, it records nothing more,
    /// and none of its calls reaches its backend. `true` if it was alive.
    pub fn kill(&self) -> bool {
        let mut alive = self.alive.write().unwrap_or_else(PoisonError::into_inner);
        let was_alive = std::mem::replace(&mut *alive, false);
        if was_alive {
            self.recorder.record(0, Kind::ProcessKilled { victim: self.number });
            self.death.notify_waiters();
        }
        was_alive
    }

    /// Notes a claim that is about to be sent and begins elsewhere.
    pub(super) fn claims_elsewhere(&self, view: (&str, &str, u32), epoch: u64, member: &str, why: Elsewhere) {
        let mut epochs = lock(&self.epochs);
        let claims = epochs.entry((view.0.into(), view.1.into(), view.2)).or_default();
        if !claims.unanswered.iter().any(|(e, m, _)| (*e, m.as_str()) == (epoch, member)) {
            claims.unanswered.push((epoch, member.to_owned(), why));
        }
    }

    /// The reason why the unanswered claim of this epoch and member began elsewhere; `None` if there is none.
    pub(super) fn unanswered(&self, view: (&str, &str, u32), epoch: u64, member: &str) -> Option<Elsewhere> {
        let epochs = lock(&self.epochs);
        let claims = epochs.get(&(view.0.into(), view.1.into(), view.2))?;
        let known = claims.unanswered.iter().find(|(e, m, _)| (*e, m.as_str()) == (epoch, member));
        known.map(|(_, _, why)| *why)
    }

    /// Takes the unanswered claim of this epoch and member, if it began elsewhere. Returns the reason.
    pub(super) fn answered(&self, view: (&str, &str, u32), epoch: u64, member: &str) -> Option<Elsewhere> {
        let mut epochs = lock(&self.epochs);
        let claims = epochs.get_mut(&(view.0.into(), view.1.into(), view.2))?;
        let index = claims.unanswered.iter().position(|(e, m, _)| (*e, m.as_str()) == (epoch, member))?;
        Some(claims.unanswered.remove(index).2)
    }

    /// Puts the epoch of a session on record. `false` if it is below one that is there.
    pub(super) fn latest_epoch(&self, view: (&str, &str, u32), epoch: u64) -> bool {
        let mut epochs = lock(&self.epochs);
        let claims = epochs.entry((view.0.into(), view.1.into(), view.2)).or_default();
        claims.highest = epoch.max(claims.highest);
        epoch == claims.highest
    }

    /// Notes that the broker has a dead letter.
    pub(super) fn letter_stored(&self, topic: &str, group: &str, partition: u32, position: u64) {
        lock(&self.letters).insert((topic.into(), group.into(), partition, position));
    }

    pub(super) fn has_letter(&self, topic: &str, group: &str, partition: u32, position: u64) -> bool {
        lock(&self.letters).contains(&(topic.into(), group.into(), partition, position))
    }

    /// Announces that the test asks a subscription of this process to seek: a claim that moves a held partition is then
    /// recorded as a seek.
    pub fn expect_seek(&self) {
        self.seeking.store(true, Ordering::Release);
    }

    pub(super) fn expects_seek(&self) -> bool {
        self.seeking.load(Ordering::Acquire)
    }

    /// Waits until it is killed. Cancel safe.
    pub async fn killed(&self) {
        // Woken in the order of waiting, so that a simulation repeats itself.
        while self.is_alive() {
            let mut death = pin!(self.death.notified());
            death.as_mut().enable();
            if self.is_alive() {
                death.await;
            }
        }
    }

    /// Appends a record, unless the process was killed.
    pub fn note(&self, kind: Kind) {
        let alive = self.alive.read().unwrap_or_else(PoisonError::into_inner);
        if *alive {
            self.recorder.record(self.number, kind);
        }
    }

    /// Counts an observation that no rule is about.
    pub fn saw(&self, what: &'static str) {
        *lock(&self.sights).entry(what).or_default() += 1;
    }

    /// The observations that were counted, by name.
    #[must_use]
    pub fn sights(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.sights).clone()
    }

    /// A fresh number for a call of any sort.
    pub(super) fn next_call(&self) -> u64 {
        self.calls.next()
    }

    /// Publishes of this process whose outcome its hook has not heard.
    #[must_use]
    pub fn unresolved(&self) -> usize {
        self.offers().values().filter(|offer| !offer.told).count()
    }

    /// Notes the bus's report that the log is another; the claim that follows tells where it goes on.
    pub(super) fn expect_reset(&self, topic: &str, group: &str, partition: u32) {
        lock(&self.resets).insert((topic.into(), group.into(), partition));
    }

    pub(super) fn expects_reset(&self, topic: &str, group: &str, partition: u32) -> bool {
        lock(&self.resets).contains(&(topic.into(), group.into(), partition))
    }

    pub(super) fn take_reset(&self, topic: &str, group: &str, partition: u32) {
        lock(&self.resets).remove(&(topic.into(), group.into(), partition));
    }

    pub(super) fn offers(&self) -> MutexGuard<'_, BTreeMap<(String, String), Offer>> {
        lock(&self.offers)
    }
}

impl Recorder for Process {
    fn record(&self, _: u32, kind: Kind) {
        self.note(kind);
    }

    fn time_of(&self, instant: Instant) -> Option<u64> {
        self.recorder.time_of(instant)
    }
}

/// Locks also after a panic: a handler that panics leaves whole values behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

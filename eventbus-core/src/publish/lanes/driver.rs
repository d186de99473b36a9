//! The lanes' one future: descriptions of topics, timers, and reading the log for a stamp.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::shard::{LaneRef, Place};
use super::shared::Engine;
use super::topic::TopicLanes;
use crate::backend::{Backend, TopicDescription};
use crate::model::{Error, Position, Result, Stamp};
use crate::runtime::Mutex;

/// Logs that are read at the same time.
const LOOKS: usize = 32;

/// What the lanes ask of the driver.
pub(super) enum Command {
    Describe(Arc<TopicLanes>, u64),
    Look(Look),
    Rest(Instant, LaneRef),
}

/// A stamp to be looked for.
pub(super) struct Look {
    pub(super) topic: Arc<TopicLanes>,
    pub(super) place: Place,
    pub(super) partition: u32,
    pub(super) from: Position,
    pub(super) stamp: Stamp,
    /// The incarnation in which `from` is a position.
    pub(super) log: Arc<str>,
}

/// The way to the driver; never blocks.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    news: Notify,
}

#[derive(Default)]
struct InboxState {
    commands: Vec<Command>,
    stopped: bool,
}

impl Inbox {
    pub(super) fn push(&self, command: Command) {
        let mut state = self.state.lock();
        // A command holds its topic, and nobody reads it any more.
        if !state.stopped {
            state.commands.push(command);
            drop(state);
            self.news.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        let commands = {
            let mut state = self.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.commands)
        };
        drop(commands);
        self.news.notify_one();
    }

    fn take(&self) -> (Vec<Command>, bool) {
        let mut state = self.state.lock();
        (std::mem::take(&mut state.commands), state.stopped)
    }
}

enum Done {
    Described(Arc<TopicLanes>, u64, Result<TopicDescription>),
    Looked(Arc<TopicLanes>, Place, Result<Found, Error>),
    Counted(Arc<TopicLanes>, Result<u32>),
}

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Drives what the lanes cannot do at the call. Run it on the bus's own thread: without it no topic is described and
/// nothing is sent again. Dropping it closes the lanes.
#[must_use = "nothing is published before the driver runs"]
pub(crate) struct LanesDriver {
    engine: Arc<Engine>,
    topics: Box<dyn Fn() -> Vec<Arc<TopicLanes>> + Send>,
    close: Box<dyn Fn() + Send>,
    /// When partitions are counted again, where their number can change.
    recount_at: Option<Instant>,
    jobs: FuturesUnordered<Job>,
    looking: usize,
    looks: VecDeque<Look>,
    /// By instant, then by when they were set.
    timers: BTreeMap<(Instant, u64), LaneRef>,
    set: u64,
}

impl LanesDriver {
    /// `topics` lists them; `close` ends the lanes at once.
    pub(super) fn new(
        engine: Arc<Engine>,
        topics: impl Fn() -> Vec<Arc<TopicLanes>> + Send + 'static,
        close: impl Fn() + Send + 'static,
    ) -> Self {
        Self {
            engine,
            topics: Box::new(topics),
            close: Box::new(close),
            recount_at: None,
            jobs: FuturesUnordered::new(),
            looking: 0,
            looks: VecDeque::new(),
            timers: BTreeMap::new(),
            set: 0,
        }
    }

    /// Runs until the lanes are closed or dropped.
    pub(crate) async fn run(mut self) {
        let recounts = self.engine.backend.capabilities().partitions_change;
        self.recount_at = recounts.then(|| Instant::now() + self.engine.config.recount);
        loop {
            let (commands, stopped) = self.engine.inbox.take();
            if stopped {
                return;
            }
            commands.into_iter().for_each(|command| self.obey(command));
            self.ring();
            let due = self.timers.first_key_value().map(|((at, _), _)| *at);
            let due = due.into_iter().chain(self.recount_at).min();
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.engine.inbox.news.notified() => {}
                Some(done) = self.jobs.next() => self.finish(done),
                () = timer => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Describe(topic, version) => {
                let engine = Arc::clone(&self.engine);
                self.jobs.push(Box::pin(async move {
                    let answer = describe(&engine, &topic).await;
                    Done::Described(topic, version, answer)
                }));
            }
            Command::Look(look) => {
                self.looks.push_back(look);
                self.look();
            }
            Command::Rest(at, lane) => {
                self.timers.insert((at, self.set), lane);
                self.set += 1;
            }
        }
    }

    fn look(&mut self) {
        while self.looking < LOOKS
            && let Some(look) = self.looks.pop_front()
        {
            self.looking += 1;
            let backend = Arc::clone(&self.engine.backend);
            self.jobs.push(Box::pin(async move {
                let found = find(&*backend, &look).await;
                Done::Looked(look.topic, look.place, found)
            }));
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Described(topic, version, answer) => topic.described(version, answer),
            Done::Counted(topic, Ok(count)) => topic.counted(count),
            Done::Counted(topic, Err(error)) => {
                tracing::debug!(target: "eventbus", topic = %topic.name(), %error, "partitions could not be counted");
            }
            Done::Looked(topic, place, found) => {
                self.looking -= 1;
                topic.looked(place, found);
                self.look();
            }
        }
    }

    fn recount(&mut self) {
        for topic in (self.topics)().into_iter().filter(|topic| topic.count.is_known()) {
            let engine = Arc::clone(&self.engine);
            self.jobs.push(Box::pin(async move {
                let count = engine.backend.count_partitions(topic.name()).await;
                Done::Counted(topic, count)
            }));
        }
    }

    /// Does what is due: counts partitions, and ends the rests that are over.
    fn ring(&mut self) {
        let now = Instant::now();
        if self.recount_at.is_some_and(|at| at <= now) {
            self.recount();
            self.recount_at = Some(now + self.engine.config.recount);
        }
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            let lane = timer.remove();
            lane.topic.rested(&lane);
        }
    }
}

impl Drop for LanesDriver {
    fn drop(&mut self) {
        (self.close)();
    }
}

/// Asks until there is an answer that asking again cannot change.
async fn describe(engine: &Engine, topic: &TopicLanes) -> Result<TopicDescription, Error> {
    let mut attempt = 0;
    loop {
        match engine.backend.describe_topic(topic.name()).await {
            Err(error) if error.is_retryable() => {
                attempt += 1;
                tracing::debug!(topic = %topic.name(), %error, attempt, "the topic could not be described");
                tokio::time::sleep(engine.resend_delay(attempt)).await;
            }
            answer => return answer,
        }
    }
}

/// What the log says of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there.
    At(Position),
    /// It is not, and never was in this log.
    Absent,
    /// It is not, but this is not the log that it was sent to first, or no longer all of it.
    Untold,
}

/// P3: reads the log from its end as known before the first send, unless it is another one by now: then that end says nothing,
/// and what was sent since may stand anywhere in it.
async fn find(backend: &dyn Backend, look: &Look) -> Result<Found, Error> {
    let described = backend.describe_topic(look.topic.name()).await?;
    let same = described.incarnation == *look.log;
    let from = if same { look.from } else { Position::ZERO };
    if let Some(position) = backend.find_stamp(look.topic.name(), look.partition, from, look.stamp).await? {
        return Ok(Found::At(position));
    }
    // Looked at again: retention may have passed while the log was read.
    let described = backend.describe_topic(look.topic.name()).await?;
    let first = described.partitions.get(look.partition as usize).map_or(Position::ZERO, |log| log.first);
    Ok(if same && first <= from { Found::Absent } else { Found::Untold })
}

//! The driver: the one future of the lanes, for descriptions of topics, timers, and searches of the log for a stamp.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::find_stamp::{StampOutcome, StampSearch, find_stamp};
use super::shard::{LaneRef, TicketId};
use super::shared::Shared;
use super::topic::TopicLanes;
use crate::backend::TopicDescription;
use crate::model::{Error, Result};
use crate::runtime::Mutex;

/// The most logs that are read at the same time.
const SEARCHES: usize = 32;

/// A command of the lanes to the driver.
pub(super) enum DriverCommand {
    Describe(Arc<TopicLanes>, u64),
    FindStamp(Arc<TopicLanes>, TicketId, StampSearch),
    BackOff(Instant, LaneRef),
}

/// The driver's inbox. Pushing to it never blocks.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    news: Notify,
}

#[derive(Default)]
struct InboxState {
    commands: Vec<DriverCommand>,
    stopped: bool,
}

impl Inbox {
    pub(super) fn push(&self, command: DriverCommand) {
        let mut state = self.state.lock();
        // A command holds its topic, and a stopped driver reads none.
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

    fn take(&self) -> (Vec<DriverCommand>, bool) {
        let mut state = self.state.lock();
        (std::mem::take(&mut state.commands), state.stopped)
    }
}

enum DriverResult {
    Described(Arc<TopicLanes>, u64, Box<Result<TopicDescription>>),
    Searched(Arc<TopicLanes>, TicketId, Result<StampOutcome>),
    Counted(Arc<TopicLanes>, Result<u32>),
}

type DriverJob = Pin<Box<dyn Future<Output = DriverResult> + Send>>;

/// The future that does what the lanes cannot do at the call. Run it on the bus's own thread: without it no topic is
/// described and nothing is sent again. Dropping it closes the lanes.
#[must_use = "nothing is published before the driver runs"]
pub(crate) struct LanesDriver {
    shared: Arc<Shared>,
    topics: Box<dyn Fn() -> Vec<Arc<TopicLanes>> + Send>,
    close: Box<dyn Fn() + Send>,
    /// The instant of the next count of partitions; `None` where their number cannot change.
    recount_at: Option<Instant>,
    /// The instant of the next look for late retries.
    look_at: Instant,
    jobs: FuturesUnordered<DriverJob>,
    /// The number of logs that are being read.
    searching: usize,
    searches: VecDeque<(Arc<TopicLanes>, TicketId, StampSearch)>,
    /// Back-offs by their instants, then in the order in which they were set.
    timers: BTreeMap<(Instant, u64), LaneRef>,
    set: u64,
}

impl LanesDriver {
    /// Makes the driver. `topics` lists the bus's topics; `close` ends the lanes at once.
    pub(super) fn new(
        shared: Arc<Shared>,
        topics: impl Fn() -> Vec<Arc<TopicLanes>> + Send + 'static,
        close: impl Fn() + Send + 'static,
    ) -> Self {
        Self {
            shared,
            topics: Box::new(topics),
            close: Box::new(close),
            recount_at: None,
            look_at: Instant::now(),
            jobs: FuturesUnordered::new(),
            searching: 0,
            searches: VecDeque::new(),
            timers: BTreeMap::new(),
            set: 0,
        }
    }

    /// Runs until the lanes are closed or dropped.
    pub(crate) async fn run(mut self) {
        let recounts = self.shared.backend.capabilities().partitions_change;
        self.recount_at = recounts.then(|| Instant::now() + self.shared.config.recount);
        self.look_at = Instant::now() + self.look_every();
        loop {
            let (commands, stopped) = self.shared.inbox.take();
            if stopped {
                return;
            }
            commands.into_iter().for_each(|command| self.obey(command));
            self.ring();
            let due = self.timers.first_key_value().map(|((at, _), _)| *at);
            let due = due.into_iter().chain(self.recount_at).fold(self.look_at, Instant::min);
            tokio::select! {
                biased;
                () = self.shared.inbox.news.notified() => {}
                Some(done) = self.jobs.next() => self.finish(done),
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    fn obey(&mut self, command: DriverCommand) {
        match command {
            DriverCommand::Describe(topic, version) => {
                let shared = Arc::clone(&self.shared);
                self.jobs.push(Box::pin(async move {
                    let answer = describe(&shared, &topic).await;
                    DriverResult::Described(topic, version, Box::new(answer))
                }));
            }
            DriverCommand::FindStamp(topic, place, search) => {
                self.searches.push_back((topic, place, search));
                self.start_searches();
            }
            DriverCommand::BackOff(at, lane) => {
                self.timers.insert((at, self.set), lane);
                self.set += 1;
            }
        }
    }

    fn start_searches(&mut self) {
        while self.searching < SEARCHES
            && let Some((topic, place, search)) = self.searches.pop_front()
        {
            self.searching += 1;
            let backend = Arc::clone(&self.shared.backend);
            self.jobs.push(Box::pin(async move {
                let found = find_stamp(&*backend, topic.name(), &search).await;
                DriverResult::Searched(topic, place, found)
            }));
        }
    }

    fn finish(&mut self, done: DriverResult) {
        match done {
            DriverResult::Described(topic, version, answer) => topic.described(version, *answer),
            DriverResult::Counted(topic, Ok(count)) => topic.counted(count),
            DriverResult::Counted(topic, Err(error)) => {
                tracing::debug!(target: "eventbus", topic = %topic.name(), %error, "partitions could not be counted");
            }
            DriverResult::Searched(topic, place, found) => {
                self.searching -= 1;
                topic.searched(place, found);
                self.start_searches();
            }
        }
    }

    fn recount(&mut self) {
        for topic in (self.topics)().into_iter().filter(|topic| topic.partitions.is_known()) {
            let shared = Arc::clone(&self.shared);
            self.jobs.push(Box::pin(async move {
                let count = shared.backend.count_partitions(topic.name()).await;
                DriverResult::Counted(topic, count)
            }));
        }
    }

    /// Returns the interval between looks for late retries, so that each is told in time or a little later.
    fn look_every(&self) -> Duration {
        (self.shared.config.notice_after / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Does what is due: looks for late retries, counts partitions, and lets lanes go on whose back-off is over.
    fn ring(&mut self) {
        let now = Instant::now();
        if self.look_at <= now {
            self.look_at = now + self.look_every();
            (self.topics)().iter().for_each(|topic| topic.tell_retries(now));
        }
        if self.recount_at.is_some_and(|at| at <= now) {
            self.recount();
            self.recount_at = Some(now + self.shared.config.recount);
        }
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            let lane = timer.remove();
            lane.topic.backed_off(&lane);
        }
    }
}

impl Drop for LanesDriver {
    fn drop(&mut self) {
        (self.close)();
    }
}

/// Describes a topic, again and again until trying again cannot change the answer.
async fn describe(shared: &Shared, topic: &TopicLanes) -> Result<TopicDescription, Error> {
    let mut attempt = 0;
    loop {
        match shared.backend.describe_topic(topic.name()).await {
            Err(error) if error.is_retryable() => {
                attempt += 1;
                tracing::debug!(topic = %topic.name(), %error, attempt, "the topic could not be described");
                topic.describe_failed(&error);
                tokio::time::sleep(shared.resend_delay(attempt)).await;
            }
            answer => return answer,
        }
    }
}

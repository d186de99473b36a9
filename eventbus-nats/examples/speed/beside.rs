//! A bus beside its bare client: workloads, pacing and table, the same on every broker.
//!
//! The programs `nats-speed` and `kafka-speed` include this file. In a round all sides run each workload one after the
//! other, so that other load on the machine falls on all of them; every other round goes in the opposite order. The
//! result is the median of the rounds' ratios.
//!
//! | workload | measured |
//! |---|---|
//! | publish | from the first record to the last confirmation |
//! | consume | from the first record handled to the last; not how long a reader takes to begin |
//! | both | from the first record published to the last handled, by a reader that has caught up before |
//! | p99 | from when a record was *meant* to be sent to its handling, so that a late sender hides nothing |

mod table;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use eventbus_core::{Confirmation, Delivery, Envelope, EventBus, Subscribe, Subscription, handler_fn};
use hdrhistogram::Histogram;
use tokio::sync::Notify;

pub(crate) use table::{Goals, Table};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) const KEYS: usize = 1_000;
pub(crate) const PARTITIONS: usize = 16;

const BYTES: usize = 256;

/// Confirmations that a publisher on a bus keeps: at least as many as any bus has on its way at once, so that waiting
/// for the oldest never holds it back, and not so many that they fill the heap.
const UNCONFIRMED: usize = 20_000;

/// Records a second in the latency workload.
const PACE: usize = 1_000;

/// Time-out of a workload, beyond its paced time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Payloads, one a record. A publisher sends each as soon as the iterator yields it, so that the iterator sets the
/// pace.
pub(crate) type Payloads<'a> = &'a mut (dyn Iterator<Item = Bytes> + Send);

/// A bus, or a bare client, with a topic of its own.
#[async_trait(?Send)]
pub(crate) trait Side {
    /// Publishes all payloads, over [`KEYS`] keys in turn, and waits until they are confirmed.
    async fn publish(&self, payloads: Payloads<'_>) -> Result<(), Failure>;

    /// Begins to read the topic, from its first record on.
    async fn read(&mut self, seen: Arc<Seen>) -> Result<(), Failure>;

    /// Ends reading, and removes the topic.
    async fn close(&mut self) -> Result<(), Failure>;
}

/// The role of a side, which decides its workloads and its opponents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Bus,
    Bare,
    /// A bare client whose settings are for latency alone.
    BareLatency,
}

/// Records read so far, counted over all readers of a side.
pub(crate) struct Seen {
    origin: Instant,
    expected: AtomicUsize,
    count: AtomicUsize,
    marks: Mutex<Marks>,
    done: Notify,
}

struct Marks {
    first: Instant,
    last: Instant,
    spread: Histogram<u64>,
}

impl Seen {
    fn new() -> Result<Arc<Self>, Failure> {
        let origin = Instant::now();
        let marks = Mutex::new(Marks { first: origin, last: origin, spread: Histogram::new(3)? });
        let (expected, count, done) = (AtomicUsize::new(0), AtomicUsize::new(0), Notify::new());
        Ok(Arc::new(Self { origin, expected, count, marks, done }))
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the count anew. Only called while nothing is under way.
    fn expect(&self, records: usize) {
        self.expected.store(records, Ordering::Release);
        self.count.store(0, Ordering::Release);
        self.marks().spread.reset();
    }

    /// Counts a handled record, and its latency if the payload states when it was meant to be sent.
    pub(crate) fn take(&self, payload: &[u8]) {
        let meant = payload.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        if meant > 0 {
            let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            // The histogram grows as it needs to.
            let _ = self.marks().spread.record(now.saturating_sub(meant));
        }
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if count == 1 {
            self.marks().first = Instant::now();
        }
        if count == self.expected.load(Ordering::Acquire) {
            self.marks().last = Instant::now();
            self.done.notify_one();
        }
    }

    async fn all(&self) -> Result<(), Failure> {
        let seen = || self.count.load(Ordering::Acquire);
        let waited = tokio::time::timeout(PATIENCE, self.done.notified()).await;
        Ok(waited.map_err(|_| format!("{} of {} records came", seen(), self.expected.load(Ordering::Acquire)))?)
    }
}

fn plain(records: usize) -> impl Iterator<Item = Bytes> + Send {
    let mut payload = vec![b'x'; BYTES];
    payload[..8].fill(0);
    std::iter::repeat_n(Bytes::from(payload), records)
}

/// Yields payloads that state when they are meant to be sent, each at that time, or at once if it is late. Sleeps on
/// the thread: the runtime's own timers are good for a millisecond only, which is more than the measured latency. That
/// thread is the program's first one, which runs nothing else of the runtime's.
fn paced(records: usize, origin: Instant) -> impl Iterator<Item = Bytes> + Send {
    let begin = Instant::now() + Duration::from_millis(5);
    (0..records).map(move |n| {
        let meant = begin + Duration::from_secs(1).mul_f64(n as f64 / PACE as f64);
        std::thread::sleep(meant.saturating_duration_since(Instant::now()));
        let mut payload = vec![b'x'; BYTES];
        let nanos = u64::try_from((meant - origin).as_nanos()).unwrap_or(u64::MAX);
        payload[..8].copy_from_slice(&nanos.to_be_bytes());
        payload.into()
    })
}

/// A bus as a side.
pub(crate) struct BusSide {
    bus: Box<dyn EventBus>,
    topic: String,
    subscription: Option<Subscription>,
}

impl BusSide {
    pub(crate) fn new(bus: impl EventBus + 'static, topic: &str) -> Self {
        Self { bus: Box::new(bus), topic: topic.into(), subscription: None }
    }
}

#[async_trait(?Send)]
impl Side for BusSide {
    async fn publish(&self, payloads: Payloads<'_>) -> Result<(), Failure> {
        let mut window: VecDeque<Confirmation> = VecDeque::with_capacity(UNCONFIRMED);
        for (n, payload) in payloads.enumerate() {
            let envelope = Envelope::builder("Speed", "/speed").key(format!("key-{}", n % KEYS)).payload(payload);
            if window.len() == UNCONFIRMED
                && let Some(oldest) = window.pop_front()
            {
                oldest.await?;
            }
            window.push_back(self.bus.publish(&self.topic, envelope.build()?).await?);
        }
        for confirmation in window {
            confirmation.await?;
        }
        Ok(())
    }

    async fn read(&mut self, seen: Arc<Seen>) -> Result<(), Failure> {
        let handler = handler_fn(move |delivery: Delivery| {
            let seen = Arc::clone(&seen);
            async move {
                seen.take(delivery.envelope().payload());
                Ok(())
            }
        });
        self.subscription = Some(self.bus.subscribe(Subscribe::to(&*self.topic).group("g"), handler).await?);
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        if let Some(subscription) = self.subscription.take() {
            subscription.drain(Duration::from_secs(10)).await?;
            self.bus.delete_group(&self.topic, "g").await?;
        }
        Ok(self.bus.delete_topic(&self.topic).await?)
    }
}

/// The size of a run.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) messages: usize,
    pub(crate) rounds: usize,
    /// Seconds of the latency workload; 0 leaves it out.
    pub(crate) seconds: usize,
}

impl Plan {
    /// Reads a program's arguments behind the server's URL.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
        Ok(Self { messages: number(200_000)?.max(1), rounds: number(3)?.max(1), seconds: number(10)? })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Workload {
    Publish,
    Consume,
    Both,
    Latency,
}

impl Workload {
    const ALL: [(Self, &str); 4] =
        [(Self::Publish, "publish"), (Self::Consume, "consume"), (Self::Both, "both"), (Self::Latency, "p99")];
}

/// A side in the course of a round.
pub(crate) struct Contestant {
    name: &'static str,
    role: Role,
    side: Box<dyn Side>,
    seen: Arc<Seen>,
    reads: bool,
    /// Records of the topic that are published and not read yet.
    unread: usize,
}

impl Contestant {
    pub(crate) fn new(name: &'static str, role: Role, side: impl Side + 'static) -> Result<Self, Failure> {
        Ok(Self { name, role, side: Box::new(side), seen: Seen::new()?, reads: false, unread: 0 })
    }

    /// Runs a workload. Returns thousands of records a second, or the 99th and the 50th percentile in microseconds.
    async fn run(&mut self, workload: Workload, plan: &Plan) -> Result<(f64, f64), Failure> {
        let rate = |records: usize, took: Duration| (records as f64 / took.as_secs_f64() / 1_000.0, 0.0);
        match workload {
            Workload::Publish => {
                let begun = Instant::now();
                self.publish(&mut plain(plan.messages)).await?;
                Ok(rate(plan.messages, begun.elapsed()))
            }
            Workload::Consume => {
                let records = self.unread;
                self.read_all().await?;
                let marks = self.seen.marks();
                Ok(rate(records, marks.last - marks.first))
            }
            Workload::Both => {
                self.seen.expect(plan.messages);
                let begun = Instant::now();
                self.publish(&mut plain(plan.messages)).await?;
                self.seen.all().await?;
                self.unread = 0;
                Ok(rate(plan.messages, self.seen.marks().last - begun))
            }
            Workload::Latency => self.latency(plan.seconds * PACE).await,
        }
    }

    async fn publish(&mut self, payloads: Payloads<'_>) -> Result<(), Failure> {
        self.unread += payloads.size_hint().0;
        self.side.publish(payloads).await
    }

    /// Begins to read at the topic's first record, and waits for the last.
    async fn read_all(&mut self) -> Result<(), Failure> {
        if self.reads || self.unread == 0 {
            return Ok(());
        }
        self.reads = true;
        self.seen.expect(std::mem::take(&mut self.unread));
        self.side.read(Arc::clone(&self.seen)).await?;
        self.seen.all().await
    }

    async fn latency(&mut self, records: usize) -> Result<(f64, f64), Failure> {
        self.read_all().await?;
        self.seen.expect(records);
        self.side.publish(&mut paced(records, self.seen.origin)).await?;
        self.seen.all().await?;
        let marks = self.seen.marks();
        let micros = |quantile| marks.spread.value_at_quantile(quantile) as f64 / 1_000.0;
        Ok((micros(0.99), micros(0.5)))
    }
}

/// Runs one round of every workload, then closes all sides.
pub(crate) async fn round(
    number: usize,
    mut sides: Vec<Contestant>,
    plan: &Plan,
    table: &mut Table,
) -> Result<(), Failure> {
    if number % 2 == 1 {
        sides.reverse();
    }
    // Warm-up: no workload pays for connections, ids of producers and other first calls.
    for side in &mut sides {
        side.publish(&mut plain(KEYS)).await?;
    }
    for (workload, name) in Workload::ALL {
        let paced = workload == Workload::Latency;
        if paced && plan.seconds == 0 {
            continue;
        }
        let mut figures = Vec::new();
        for side in sides.iter_mut().filter(|side| paced || side.role != Role::BareLatency) {
            let ran = side.run(workload, plan).await;
            let (figure, p50) = ran.map_err(|error| format!("round {number}, {name} by {}: {error}", side.name))?;
            let text = if paced { format!("µs; p50 {p50:.0}") } else { "k/s".into() };
            println!("round {number} {name:8} {:20} {figure:.0} {text}", side.name);
            figures.push((side.name, side.role, figure));
        }
        table.note((workload, name), &figures);
    }
    for side in &mut sides {
        side.side.close().await?;
    }
    Ok(())
}

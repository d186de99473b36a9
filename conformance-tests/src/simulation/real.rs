//! Real keyed events under simulation: a repository's history, published and handled on three members of which some are
//! killed. It is folded as it is handled, and compared with the fold in order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbus_core::backend::{Backend, ensure_topic};
use eventbus_core::{
    Backoff, BusConfig, Delivery, Envelope, HandlerError, Position, Result, Subscribe, Subscription, Threads,
    TopicSpec, handler_fn,
};
use eventbus_memory::{Latency, MemoryBackend, MemoryConfig, MemoryWorld, OnCut, Wait};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::dice::{Dice, SeededEnv};
use crate::file_history::{Change, Tree};
use crate::harness::{Node, Process, lock};
use crate::history::{Kind, Recorder};

const TOPIC: &str = "files";
const GROUP: &str = "fold";
/// Handler attempts that fail, in percent, and the most failures of one envelope.
const FAILING: (u64, u32) = (5, 3);

/// One event of a history, as `data/README.md` describes it.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct FileEvent {
    /// The file's path.
    pub key: String,
    /// The event's number within the file's events, from 1 on.
    pub sequence: u64,
    /// The change of the file.
    pub payload: Change,
}

/// The result of a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Folded {
    /// The tree as it was folded while handling.
    pub tree: Tree,
    /// Processes killed.
    pub kills: u32,
    /// Handler calls that ended well, repeats among them.
    pub handled: u64,
    /// Envelopes that went to the dead-letter topic: there must be none.
    pub dead_letters: u64,
}

/// A recorder that keeps nothing: the tree is the judge.
#[derive(Debug)]
struct Nowhere;

impl Recorder for Nowhere {
    fn record(&self, _: u32, _: Kind) {}
}

#[derive(Debug)]
struct Shared {
    tree: Mutex<Tree>,
    dice: Mutex<Dice>,
    failed: Mutex<BTreeMap<(u32, Position), u32>>,
    handled: Mutex<u64>,
    dead_letters: Mutex<u64>,
}

struct Member {
    node: Node,
    _subscription: Subscription,
}

struct Run {
    seed: u64,
    world: MemoryWorld,
    shared: Arc<Shared>,
    processes: u32,
}

/// Publishes and handles these events under the schedule of a seed.
///
/// # Errors
/// The bus's error; none is expected.
///
/// # Panics
/// When no runtime can be made.
pub fn simulate_events(seed: u64, events: &[FileEvent]) -> Result<Folded> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    #[allow(clippy::expect_used)] // a test's set-up
    let runtime = runtime.expect("a current-thread runtime");
    runtime.block_on(Box::pin(run(seed, events)))
}

async fn run(seed: u64, events: &[FileEvent]) -> Result<Folded> {
    let mut dice = Dice::new(seed, 10);
    let world = MemoryConfig::new()
        .latency(Latency::everywhere(Wait::between(Duration::ZERO, dice.millis(1, 10))))
        .env(Arc::new(SeededEnv::new(seed, 11, 1_700_000_000_000)))
        .build()?;
    let shared = Arc::new(Shared {
        tree: Mutex::new(Tree::at_least_once()),
        dice: Mutex::new(Dice::new(seed, 12)),
        failed: Mutex::default(),
        handled: Mutex::default(),
        dead_letters: Mutex::default(),
    });
    let control = world.connect();
    ensure_topic(&control, &TopicSpec::new(TOPIC).partitions(16)).await?;
    let mut run = Run { seed, world, shared, processes: 0 };
    let publisher = run.node()?.0;
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(run.member().await?);
    }
    let confirmations = publish(&publisher, events)?;
    let mut kills = 0;
    for _ in 0..dice.between(2, 6) {
        sleep(dice.millis(20, 1_500)).await;
        let victim = members.swap_remove(dice.index(members.len()));
        victim.node.process().kill();
        kills += 1;
        sleep(dice.millis(0, 500)).await;
        members.push(run.member().await?);
    }
    for confirmation in confirmations {
        confirmation.await?.await?;
    }
    wait_handled(&control).await?;
    let shared = run.shared;
    let (handled, dead_letters) = (*lock(&shared.handled), *lock(&shared.dead_letters));
    Ok(Folded { tree: std::mem::take(&mut *lock(&shared.tree)), kills, handled, dead_letters })
}

/// Hands all events over, in their order.
fn publish(node: &Node, events: &[FileEvent]) -> Result<Vec<eventbus_core::Publishing>> {
    let mut publishing = Vec::with_capacity(events.len());
    for event in events {
        let envelope = Envelope::builder(event.payload.event_type(), "/history")
            .id(format!("{}-{}", event.key, event.sequence))
            .key(event.key.as_str())
            .sequence(event.sequence)
            .json(&event.payload)
            .build()?;
        publishing.push(node.bus().publish(TOPIC, envelope));
    }
    Ok(publishing)
}

async fn wait_handled(control: &MemoryBackend) -> Result<()> {
    let (topic, group) = (TOPIC.parse()?, GROUP.parse()?);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(600) {
        let described = control.describe_group(&topic, &group).await?;
        if described.partitions.iter().all(|partition| partition.lag == 0) {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

impl Run {
    fn node(&mut self) -> Result<(Node, MemoryBackend)> {
        self.processes += 1;
        let env = SeededEnv::new(self.seed, 100 + u64::from(self.processes), self.world.unix_millis());
        let config = BusConfig::new().threads(Threads::Caller).env(Arc::new(env)).budget_envelopes(100_000);
        let shared = self.shared.clone();
        let config = config.hook(move |event: &eventbus_core::BusEvent<'_>| {
            if matches!(event, eventbus_core::BusEvent::DeadLettered { .. }) {
                *lock(&shared.dead_letters) += 1;
            }
        });
        let backend = self.world.connect();
        let node = Node::start(Arc::new(Nowhere), self.processes, Arc::new(backend.clone()), Arc::default(), config)?;
        Ok((node, backend))
    }

    async fn member(&mut self) -> Result<Member> {
        let (node, backend) = self.node()?;
        let (process, faults) = (node.process().clone(), self.world.faults());
        tokio::spawn(async move {
            process.killed().await;
            faults.kill(&backend, OnCut::Drawn);
        });
        let options = Subscribe::to(TOPIC)
            .group(GROUP)
            .concurrency(64)
            .session_timeout(Duration::from_secs(2))
            .backoff(Backoff::exponential().initial(Duration::from_millis(5)).max(Duration::from_millis(50)));
        let (process, shared) = (node.process().clone(), self.shared.clone());
        let handler = handler_fn(move |delivery| handle(process.clone(), shared.clone(), delivery));
        let subscription = node.bus().subscribe(options, handler).await?;
        Ok(Member { node, _subscription: subscription })
    }
}

async fn handle(process: Arc<Process>, shared: Arc<Shared>, delivery: Delivery) -> Result<(), HandlerError> {
    let (takes, unlucky) = {
        let mut dice = lock(&shared.dice);
        (dice.skewed(Duration::from_millis(40)), dice.percent(FAILING.0))
    };
    sleep(takes).await;
    if !process.is_alive() {
        std::future::pending::<()>().await;
    }
    if unlucky {
        let mut failed = lock(&shared.failed);
        let times = failed.entry((delivery.partition(), delivery.position())).or_default();
        if *times < FAILING.1 {
            *times += 1;
            return Err(HandlerError::retry("told to fail"));
        }
    }
    let envelope = delivery.envelope();
    let (Some(key), Some(sequence)) = (envelope.key(), envelope.sequence()) else {
        return Err(HandlerError::permanent("not an event of a file"));
    };
    let change: Change = serde_json::from_slice(envelope.payload())?;
    lock(&shared.tree).fold(key.as_bytes(), sequence, &change);
    *lock(&shared.handled) += 1;
    Ok(())
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("seed", &self.seed).finish_non_exhaustive()
    }
}

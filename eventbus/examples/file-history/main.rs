//! A git repository's history through the bus: one key per file, 64 handlers at once, and handlers that fail at random.
//! The events are folded in the order in which they were handled. The result equals git's tree - or it does not.
//!
//! ```text
//! cargo run --release --example file-history -- [PATH] [--unordered]
//! ```
//!
//! With `--unordered` the same events go through the same handlers without their keys. Exit codes: 0 if the trees are
//! equal, 1 if they are not, 2 if the repository or the bus cannot be used. `EVENTBUS_URL` chooses the bus; memory is
//! the default.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod git;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conformance_tests::file_history::{Change, Tree};
use eventbus::{Backoff, Delivery, Envelope, EventBus, HandlerError, Key, Subscribe, TopicSpec, handler_fn};
use tokio::sync::Notify;

use git::{FileEvent, History};

const AT_ONCE: usize = 64;
/// The share of attempts that fail, and the most failures of one event.
const FAILING: f64 = 0.05;
const MOST_FAILURES: u32 = 3;
/// How long the slow event waits to be overtaken.
const PATIENCE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("file-history: {problem}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<ExitCode, String> {
    let (path, unordered) = arguments()?;
    let history = git::read(&path)?;
    let url = std::env::var("EVENTBUS_URL").unwrap_or_else(|_| "memory://".to_owned());
    let began = Instant::now();
    let folding = through_the_bus(&url, &history.events, unordered).await.map_err(|error| error.to_string())?;
    let (failures, tree) = (folding.failures.load(Ordering::Relaxed), folding.tree().clone());
    let how = if unordered { "without keys" } else { "one key per file" };
    println!(
        "{} events of {} files, {how}: handled in {:.2} s, {AT_ONCE} at once, {failures} failed attempts on the way",
        history.events.len(),
        history.events.iter().filter(|event| event.sequence == 1).count(),
        began.elapsed().as_secs_f64(),
    );
    Ok(judge(&history, &tree))
}

fn arguments() -> Result<(PathBuf, bool), String> {
    let (mut path, mut unordered) = (None, false);
    for argument in std::env::args_os().skip(1) {
        if argument == "--unordered" {
            unordered = true;
        } else if argument.as_encoded_bytes().starts_with(b"-") || path.is_some() {
            return Err(format!("unexpected {argument:?}; usage: file-history [PATH] [--unordered]"));
        } else {
            path = Some(PathBuf::from(argument));
        }
    }
    // The clone that the example was built from.
    let own = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    Ok((path.unwrap_or_else(own), unordered))
}

fn judge(history: &History, tree: &Tree) -> ExitCode {
    if let Some(broken) = tree.broken().first() {
        println!("order broken {} times, first at {broken}", tree.broken().len());
        return ExitCode::FAILURE;
    }
    if tree.files() != &history.tree {
        let wrong = |path: &&Vec<u8>| tree.files().get(*path) != history.tree.get(*path);
        let first = history.tree.keys().chain(tree.files().keys()).find(wrong);
        println!("the trees differ, first in {}", String::from_utf8_lossy(first.map_or(b"", Vec::as_slice)));
        return ExitCode::FAILURE;
    }
    println!("{} files: the folded tree equals git's at {}", tree.files().len(), &history.head[..12]);
    ExitCode::SUCCESS
}

struct Folding {
    tree: Mutex<Tree>,
    left: AtomicUsize,
    failures: AtomicUsize,
    done: Notify,
    slow: Slow,
}

/// Event that waits for the next event of its file to overtake it. With keys that cannot happen, and it waits in vain.
struct Slow {
    path: Vec<u8>,
    sequence: u64,
    overtaken: Notify,
}

impl Folding {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles an event: fails at random, is slow once, and folds the event into the tree.
    async fn handle(&self, event: &FileEvent, attempt: u32) -> Result<(), HandlerError> {
        if attempt <= MOST_FAILURES && rand::random_bool(FAILING) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(HandlerError::retry("a random failure"));
        }
        tokio::task::yield_now().await;
        let of_slow = event.path == self.slow.path;
        if of_slow && event.sequence == self.slow.sequence {
            let _ = tokio::time::timeout(PATIENCE, self.slow.overtaken.notified()).await;
        }
        self.tree().fold(&event.path, event.sequence, &event.change);
        if of_slow && event.sequence == self.slow.sequence + 1 {
            self.slow.overtaken.notify_one();
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
        Ok(())
    }
}

/// Publishes all events, and folds them as they are handled.
async fn through_the_bus(url: &str, events: &[FileEvent], unordered: bool) -> eventbus::Result<Arc<Folding>> {
    let bus = eventbus::connect(url).await?;
    let topic = format!("file-history.{:08x}", rand::random::<u32>());
    bus.ensure_topic(&TopicSpec::new(&topic)).await?;
    let folding = Arc::new(Folding {
        // A broker may deliver again after a fault. Without keys a repeated event looks like one out of order, so every
        // break of the chain counts.
        tree: Mutex::new(if unordered { Tree::new() } else { Tree::at_least_once() }),
        left: AtomicUsize::new(events.len()),
        failures: AtomicUsize::new(0),
        done: Notify::new(),
        slow: closest_pair(events),
    });
    let options = Subscribe::to(&topic)
        .group("folding")
        .concurrency(AT_ONCE)
        .attempts(MOST_FAILURES + 1)
        .backoff(Backoff::exponential().initial(Duration::from_millis(1)).max(Duration::from_millis(10)));
    let handler = {
        let folding = folding.clone();
        handler_fn(move |delivery: Delivery| {
            let folding = folding.clone();
            async move { folding.handle(&read(delivery.envelope())?, delivery.attempt()).await }
        })
    };
    let subscription = bus.subscribe(options, handler).await?;
    publish(&*bus, &topic, events, unordered).await?;
    tokio::select! {
        biased;
        () = folding.done.notified() => {}
        ended = subscription.closed() => ended?,
    }
    subscription.drain(Duration::from_secs(10)).await?;
    bus.delete_topic(&topic).await?;
    bus.close(Duration::from_secs(10)).await?;
    Ok(folding)
}

/// Publishes all events before it awaits a confirmation: each publish takes its place at the call, so the order is that
/// of the calls.
async fn publish(bus: &dyn EventBus, topic: &str, events: &[FileEvent], unordered: bool) -> eventbus::Result<()> {
    let mut confirmations = Vec::with_capacity(events.len());
    for event in events {
        let mut builder = Envelope::builder(event.change.event_type(), "/file-history").sequence(event.sequence);
        if unordered {
            // The file is an extension, not the key: the same events, unrelated for the bus.
            builder = builder.extension("file", hex(&event.path));
        } else {
            builder = builder.key(Key::from_bytes(event.path.clone())?);
        }
        confirmations.push(bus.publish(topic, builder.json(&event.change).build()?).await?);
    }
    for confirmation in confirmations {
        confirmation.await?;
    }
    Ok(())
}

fn read(envelope: &Envelope) -> Result<FileEvent, HandlerError> {
    let change: Change = serde_json::from_slice(envelope.payload()).map_err(HandlerError::permanent)?;
    let path = match (envelope.key(), envelope.extension("file")) {
        (Some(key), _) => key.as_bytes().to_vec(),
        (None, Some(file)) => unhex(file).ok_or_else(|| HandlerError::permanent("a file that is no hexadecimal"))?,
        (None, None) => return Err(HandlerError::permanent("neither a key nor a file")),
    };
    let sequence = envelope.sequence().ok_or_else(|| HandlerError::permanent("no sequence"))?;
    Ok(FileEvent { path, sequence, change })
}

/// Returns the two events of one file that are closest together, since these are the easiest to swap.
fn closest_pair(events: &[FileEvent]) -> Slow {
    let mut last = std::collections::HashMap::new();
    let pairs = events
        .iter()
        .enumerate()
        .filter_map(|(place, event)| last.insert(&event.path, place).map(|before: usize| (place - before, event)));
    let (path, sequence) = pairs
        .min_by_key(|(distance, _)| *distance)
        .map_or((Vec::new(), 0), |(_, event)| (event.path.clone(), event.sequence - 1));
    Slow { path, sequence, overtaken: Notify::new() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

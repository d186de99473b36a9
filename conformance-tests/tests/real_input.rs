//! Real keyed events with a known result, on real servers that are killed three times: 20 875 changes of 2 400 files,
//! handled by three members with 64 handlers at once each, some of whose attempts fail. The numbers are those of
//! `data/README.md`.
//!
//! Events may come again after a kill; folded, they still yield the tree that git has.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conformance_tests::brokers::{NatsVersion, shut_down, sweep};
use conformance_tests::file_history::{Change, Tree};
use conformance_tests::suite::{
    Ability, GroupProtocol, KafkaProvider, NatsProvider, Provider, Run, RunOptions, UnderWay,
};
use eventbus_core::{Backoff, Delivery, Envelope, HandlerError, Subscribe, TopicSpec, handler_fn};
use libtest_mimic::{Arguments, Trial};
use serde::Deserialize;
use tokio::sync::Notify;
use world::{Tested, judged, wrong};

#[path = "trials/world.rs"]
mod world;

const TOPIC: &str = "tokio";
const EVENTS: usize = 20_875;
const SHA256: &str = "c36f550ebdca3751b834c74dc8022b462452237ca04e32f2b86653e771ae7d63";
const KILLS: usize = 3;

#[derive(Deserialize)]
struct Line {
    key: String,
    #[serde(rename = "type")]
    event_type: String,
    sequence: u64,
    payload: Change,
}

fn lines() -> Vec<Line> {
    let file = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tokio-history.ndjson.gz")).unwrap();
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

/// State that the members share.
#[derive(Default)]
struct Folding {
    tree: Mutex<Option<Tree>>,
    handled: Mutex<BTreeSet<(Vec<u8>, u64)>>,
    again: std::sync::atomic::AtomicUsize,
    done: Notify,
}

impl Folding {
    fn count(&self) -> usize {
        self.handled.lock().unwrap().len()
    }

    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..2_000))).await;
        // 5 % of the attempts fail, at most three of one envelope.
        if delivery.attempt() <= 3 && rand::random_bool(0.05) {
            return Err(HandlerError::retry("a random failure"));
        }
        let change: Change = serde_json::from_slice(delivery.envelope().payload())?;
        let (key, sequence) =
            (delivery.envelope().key().unwrap().as_bytes().to_vec(), delivery.envelope().sequence().unwrap());
        self.tree.lock().unwrap().get_or_insert_with(Tree::at_least_once).fold(&key, sequence, &change);
        let is_new = self.handled.lock().unwrap().insert((key, sequence));
        self.again.fetch_add(usize::from(!is_new), std::sync::atomic::Ordering::Relaxed);
        if self.count() == EVENTS {
            self.done.notify_one();
        }
        Ok(())
    }
}

async fn killed_server_breaks_a_files_history(run: Run, _: Arc<tempfile::TempDir>) -> Tested {
    let lines = lines();
    assert_eq!(lines.len(), EVENTS);
    let publisher = run.process().await?;
    publisher.topic(TopicSpec::new(TOPIC).partitions(12)).await?;
    let folding = Arc::new(Folding::default());
    let mut members = Vec::new();
    for _ in 0..3 {
        let peer = run.process().await?;
        let options = Subscribe::to(TOPIC)
            .group("folding")
            .concurrency(64)
            .session_timeout(Duration::from_secs(3))
            .backoff(Backoff::exponential().initial(Duration::from_millis(1)).max(Duration::from_millis(10)));
        let folding = folding.clone();
        let handler = handler_fn(move |delivery: Delivery| {
            let folding = folding.clone();
            async move { folding.handle(delivery).await }
        });
        members.push((peer.bus().subscribe(options, handler).await?, peer));
    }
    let mut confirmations = Vec::with_capacity(lines.len());
    for (place, line) in lines.iter().enumerate() {
        let envelope = Envelope::builder(&line.event_type, "/tokio").key(line.key.as_str()).sequence(line.sequence);
        let envelope = envelope.json(&line.payload).build()?;
        confirmations.push(publisher.bus().publish(TOPIC, envelope).await?);
        if (place + 1) % (EVENTS / KILLS) == EVENTS / KILLS / 2 {
            // In mid-stream: the last publishes have no confirmation yet, and earlier ones are being handled.
            run.fault("broker down", true);
            run.fixture().restart(UnderWay::Either, Duration::from_millis(300)).await?;
            run.fixture().back().await;
            run.healed("broker down");
        }
    }
    for confirmation in confirmations {
        confirmation.await?;
    }
    if folding.count() < EVENTS {
        folding.done.notified().await;
    }
    for (member, _) in &members {
        // Events that it had not committed may come again, and are folded already.
        drop(member.drain(Duration::from_secs(10)).await);
    }
    let tree = folding.tree.lock().unwrap().take().unwrap_or_default();
    let again = folding.again.load(std::sync::atomic::Ordering::Relaxed);
    println!("{EVENTS} events, {KILLS} kills, {again} came again; sha256 {}", tree.sha256());
    if !tree.broken().is_empty() {
        return Err(wrong(format!("order broken {} times, first: {}", tree.broken().len(), tree.broken()[0])));
    }
    if tree.sha256() != SHA256 {
        return Err(wrong("the tree is not git's"));
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let seed = RunOptions::from_env(1)?.seed;
    let is_running = |kind: &str| std::env::var_os(format!("EVENTBUS_TEST_{kind}_URL")).is_some();
    let mut providers: Vec<(Arc<dyn Provider>, bool)> =
        vec![(Arc::new(NatsProvider::containers(NatsVersion::Newest)), is_running("NATS"))];
    for protocol in GroupProtocol::ALL {
        providers.push((Arc::new(KafkaProvider::containers(protocol)), is_running("KAFKA")));
    }
    if !arguments.list {
        sweep().map_err(|error| error.to_string())?;
    }
    let trials = providers.into_iter().map(|(provider, spared)| {
        let name = format!("{}::killed_server_breaks_a_files_history", provider.name().replace(' ', "-"));
        let case = move || {
            let case = killed_server_breaks_a_files_history;
            judged("real input", &provider, seed, &[Ability::RestartBroker], case).map_err(Into::into)
        };
        // A server that somebody else runs is not killed.
        Trial::test(name, case).with_ignored_flag(spared)
    });
    let conclusion = libtest_mimic::run(arguments, trials.collect());
    if !arguments.list {
        shut_down().map_err(|error| error.to_string())?;
    }
    Ok(conclusion.exit_code())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

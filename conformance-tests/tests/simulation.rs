//! The seeded simulation, over as many schedules as the environment says, judged strictly; and a test that a seed fixes
//! its schedule.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `EVENTBUS_SIM_SCHEDULES` | number of schedules | 10 000 |
//! | `EVENTBUS_SIM_SEED` | the first seed | 1 |
//!
//! A refuted schedule is run again by its seed: `EVENTBUS_SIM_SEED=… EVENTBUS_SIM_SCHEDULES=1`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use conformance_tests::file_history::Tree;
use conformance_tests::oracle::{failures_dir, write_failure};
use conformance_tests::simulation::{Coverage, FileEvent, Options, Outcome, simulate, simulate_events};
use eventbus_core::murmur2;

/// Number of failures after which a thread stops: one run teaches nothing more.
const ENOUGH: usize = 10;
/// Number of schedules below which rare branches may rightly not be met.
const TELLING: u64 = 5_000;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, got {text:?}")),
        Err(_) => default,
    }
}

/// Prints a refuted schedule and writes its history down.
fn report(seed: u64, outcome: &Outcome) {
    let path = write_failure(failures_dir(), "simulation", seed, &outcome.history, &outcome.verdict);
    println!(
        "seed {seed}: {}\n  unexpected: {:?}\n  history: {path:?}\n  {:?}",
        outcome.verdict, outcome.unexpected, outcome.plan
    );
}

fn run(schedules: u64, first: u64) -> (Coverage, usize) {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    let work = || {
        let (mut coverage, mut failures) = (Coverage::default(), 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + schedules || failures >= ENOUGH {
                return (coverage, failures);
            }
            // Every fiftieth schedule is without trouble, and judged by O9 and O10 too.
            let options = if seed.is_multiple_of(50) { Options::default().steady() } else { Options::default() };
            let outcome = simulate(seed, options);
            if !outcome.is_legal() {
                failures += 1;
                report(seed, &outcome);
            }
            coverage.add(&outcome.coverage);
        }
    };
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let mut total = (Coverage::default(), 0);
    for (coverage, failures) in results {
        total.0.add(&coverage);
        total.1 += failures;
    }
    total
}

#[test]
fn no_schedule_breaks_the_contract() {
    let (schedules, first) = (number("EVENTBUS_SIM_SCHEDULES", 10_000), number("EVENTBUS_SIM_SEED", 1));
    let begin = Instant::now();
    let (coverage, failures) = run(schedules, first);
    println!("{coverage}");
    println!("{schedules} schedules from seed {first}: {failures} refuted, {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(failures, 0, "schedules were refuted; each can be run again by its seed");
    if schedules >= TELLING {
        assert_eq!(coverage.missing(), [""; 0], "never met: such a run proves nothing about them");
    }
}

#[test]
fn a_seed_gives_the_same_history_byte_for_byte() {
    let first = number("EVENTBUS_SIM_SEED", 1);
    for seed in first..first + 100 {
        let (one, other) = (simulate(seed, Options::default()), simulate(seed, Options::default()));
        if let Some(record) = one.history.first_difference(&other.history) {
            let at = |outcome: &Outcome| outcome.history.events.get(record).cloned();
            panic!("seed {seed}: record {record} differs: {:?} and {:?}", at(&one), at(&other));
        }
        assert_eq!(one.history.to_ndjson(), other.history.to_ndjson(), "seed {seed}");
    }
}

/// The digest of the tree that all events fold to, as the page of the data states it.
const TREE: &str = "c36f550ebdca3751b834c74dc8022b462452237ca04e32f2b86653e771ae7d63";

fn real_events() -> Vec<FileEvent> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tokio-history.ndjson.gz");
    let lines = std::io::BufReader::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    std::io::BufRead::lines(lines).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

/// Two seeds take all 20 875 events; each of the others takes all events of a twentieth of the files, so that the test
/// stays within a minute and every file's history is whole.
#[test]
fn real_events_fold_to_their_tree_though_members_are_killed() {
    let events = real_events();
    let first = number("EVENTBUS_SIM_SEED", 1);
    let next = AtomicU64::new(first);
    let work = || {
        let mut kills = 0;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + 200 {
                return kills;
            }
            let whole = seed < first + 2;
            let mine = |event: &&FileEvent| whole || murmur2(event.key.as_bytes()) as u64 % 20 == seed % 20;
            let taken: Vec<FileEvent> = events.iter().filter(mine).cloned().collect();
            let mut expected = Tree::new();
            for event in &taken {
                let _ = expected.fold(event.key.as_bytes(), event.sequence, &event.payload);
            }
            let folded = simulate_events(seed, &taken).unwrap();
            assert_eq!(folded.tree.broken(), [], "seed {seed}");
            assert_eq!(folded.tree.sha256(), expected.sha256(), "seed {seed}");
            assert_eq!(folded.dead_letters, 0, "seed {seed}");
            if whole {
                assert_eq!(folded.tree.sha256(), TREE, "seed {seed}");
            }
            kills += folded.kills;
        }
    };
    let kills: u32 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("200 seeds, {} events each at the most, {kills} members killed", events.len());
    assert!(kills >= 400, "{kills} kills prove little");
}

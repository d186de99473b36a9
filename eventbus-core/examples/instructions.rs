//! One benchmark case, run a given number of times, for `scripts/instructions` to count.
//!
//! `scripts/instructions eventbus-core/instructions.txt -- target/release/examples/instructions`
#![allow(clippy::print_stderr)]

use std::process::ExitCode;

use eventbus_core::bench::{Dispatch, Publishes};

/// The batch size: records that a backend delivers at once.
const BATCH: usize = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, count] = arguments.as_slice() else {
        eprintln!("usage: instructions CASE COUNT");
        return ExitCode::from(2);
    };
    let Ok(count) = count.parse::<usize>() else {
        eprintln!("COUNT: expected a number, got {count:?}");
        return ExitCode::from(2);
    };
    if let Some(keys) = publish_keys(case) {
        let Ok(mut bus) = Publishes::new(keys) else { return ExitCode::FAILURE };
        return if bus.publish(count) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (keys, step): (usize, fn(&mut Dispatch, Vec<_>)) = match case.as_str() {
        "dispatch-1-key" => (1, Dispatch::dispatch),
        "dispatch-1000-keys" => (1_000, Dispatch::dispatch),
        "pool-1-key" => (1, Dispatch::pass),
        "pool-1000-keys" => (1_000, Dispatch::pass),
        "records" => (1_000, |_, records| drop(records)),
        other => {
            eprintln!("CASE: expected records, or pool, dispatch or publish with -1-key or -1000-keys, got {other:?}");
            return ExitCode::from(2);
        }
    };
    let Ok(mut dispatch) = Dispatch::new(keys) else { return ExitCode::FAILURE };
    for _ in 0..count.div_ceil(BATCH) {
        let records = dispatch.records(BATCH);
        step(&mut dispatch, records);
    }
    if case == "records" || dispatch.is_through() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the number of keys of a case that publishes; `None` for the other cases.
fn publish_keys(case: &str) -> Option<usize> {
    match case {
        "publish-1-key" => Some(1),
        "publish-1000-keys" => Some(1_000),
        _ => None,
    }
}

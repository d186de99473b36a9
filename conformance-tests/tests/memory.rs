//! The conformance suite on the in-memory backend, in the three shapes that brokers have.
//!
//! The standard harness does not fit: the tests are the registry's cases times the backends, which are known at run
//! time only, and the matrix is printed after the last of them. Filters, `--list` and the closing line are as usual; a
//! case that the backend cannot run shows as ignored, and in the matrix with the reason.
//!
//! `EVENTBUS_SEED` and `EVENTBUS_SEEDS` set the schedules.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use conformance_tests::suite::{CASES, Matrix, MemoryKind, MemoryProvider, Provider, RunOptions};
use libtest_mimic::Arguments;
use trials::trial;

mod trials;

/// Number of schedules of each case. The paused clock makes them cheap.
const SEEDS: u64 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let options = match RunOptions::from_env(SEEDS) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let providers: Vec<Arc<dyn Provider>> = [MemoryKind::Plain, MemoryKind::Streams, MemoryKind::Logs]
        .into_iter()
        .map(|kind| Arc::new(MemoryProvider::new(kind)) as Arc<dyn Provider>)
        .collect();
    let matrix = Matrix::new(providers.iter().map(|provider| provider.name().to_owned()).collect());
    let matrix = Arc::new(Mutex::new(matrix));
    let mut trials = Vec::new();
    for provider in &providers {
        trials.extend(CASES.iter().map(|case| trial(case, provider, &matrix, options, |_| true)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        println!("{}", matrix.lock().unwrap());
    }
    conclusion.exit_code()
}

//! The plain cases of the contract on a backend of under 300 lines (`toy.rs`):
//! `cargo run -p conformance-tests --example toy-backend`. It is part of the test command, too.

mod toy;

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::suite::{
    Abilities, CASES, Clock, Connection, Fixture, Outcome, Provider, RunOptions, Setup, run_case,
};
use eventbus_core::Error;
use eventbus_core::backend::Backend;
use libtest_mimic::{Arguments, Trial};
use toy::{Toy, ToyBackend};

/// Cases that ask for more than a toy does: shares for two members at once, retention.
const BEYOND: &[&str] = &["p0::members::planned_hand_over", "p1::retention::idle_beside_busy"];

#[derive(Debug)]
struct ToyProvider;

#[derive(Debug)]
struct ToyWorld(Arc<Toy>);

#[derive(Debug)]
struct ToyConnection(Arc<ToyBackend>);

#[async_trait]
impl Provider for ToyProvider {
    fn name(&self) -> &str {
        "toy"
    }

    /// A toy can do nothing to itself: every case that needs a fault is left out.
    fn abilities(&self) -> Abilities {
        Abilities::new()
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }

    async fn world(&self, setup: Setup) -> Result<Arc<dyn Fixture>, Error> {
        Ok(Arc::new(ToyWorld(Toy::new(setup.env))))
    }
}

#[async_trait]
impl Fixture for ToyWorld {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        Ok(Arc::new(ToyConnection(Arc::new(ToyBackend(self.0.clone())))))
    }
}

impl Connection for ToyConnection {
    fn backend(&self) -> Arc<dyn Backend> {
        self.0.clone()
    }
}

fn main() -> ExitCode {
    let provider: Arc<dyn Provider> = Arc::new(ToyProvider);
    let trial = |case: &'static _| {
        let provider = provider.clone();
        let case: &conformance_tests::suite::Case = case;
        let skipped = !case.needs.is_empty() || BEYOND.contains(&case.name.replace(' ', "").as_str());
        let run = move || match run_case(case, &provider, &RunOptions::default()) {
            Outcome::Pass => Ok(()),
            Outcome::Fail { message, .. } => Err(message.into()),
            other => Err(other.to_string().into()),
        };
        Trial::test(case.name.replace(' ', ""), run).with_ignored_flag(skipped)
    };
    libtest_mimic::run(&Arguments::from_args(), CASES.iter().map(trial).collect()).exit_code()
}

#![cfg_attr(feature = "shuttle", allow(dead_code, unused_imports))] // parts that only the other tests use
//! The lanes over a backend whose every answer a test decides.

#[cfg(not(feature = "shuttle"))]
mod count;
mod fake;
#[cfg(not(feature = "shuttle"))]
mod life;
#[cfg(not(feature = "shuttle"))]
mod order;
#[cfg(not(feature = "shuttle"))]
mod random;
#[cfg(not(feature = "shuttle"))]
mod refusal;
#[cfg(not(feature = "shuttle"))]
mod retries;
#[cfg(not(feature = "shuttle"))]
mod room;
#[cfg(feature = "shuttle")]
mod schedules;
#[cfg(not(feature = "shuttle"))]
mod stress;
#[cfg(not(feature = "shuttle"))]
mod unknown;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

pub(super) use fake::{Fake, TOPIC};

use super::Lanes;
use super::driver::LanesDriver;
use crate::backend::Pipelining;
use crate::model::{Envelope, ErrorKind, Key};
use crate::observe::{BusEvent, Hook, Hooks};
use crate::publish::config::PublishConfig;
use crate::runtime::Env;

/// A source of random numbers that are the same in every run.
#[derive(Debug, Default)]
struct TestEnv(std::sync::atomic::AtomicU64);

impl Env for TestEnv {
    fn unix_millis(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        let step = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        step.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    }
}

/// The events that the hook was told: envelope id and outcome; seals as `seal KEY`.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn hook(&self) -> Arc<dyn Hook> {
        let told = self.0.clone();
        Arc::new(move |event: &BusEvent<'_>| {
            let line = match event {
                BusEvent::Published { envelope, result: Ok(_), .. } => format!("{} stored", envelope.id()),
                BusEvent::Published { envelope, result: Err(error), .. } => {
                    format!("{} {}", envelope.id(), error.kind().as_str())
                }
                BusEvent::Sealed { key: Some(key), .. } => format!("seal {key}"),
                BusEvent::Sealed { key: None, .. } => "seal topic".into(),
                BusEvent::Retrying(retry) => retry.to_string(),
                BusEvent::Recovered { age, .. } => format!("recovered after {} s", age.as_secs()),
                other => format!("{other:?}"),
            };
            told.lock().unwrap().push(line);
        })
    }
}

pub(super) struct World {
    pub(super) lanes: Arc<Lanes>,
    pub(super) fake: Arc<Fake>,
    pub(super) told: Told,
}

/// The plan by which a world is built.
pub(super) struct Plan {
    pub(super) fake: Fake,
    pub(super) config: PublishConfig,
}

impl Plan {
    pub(super) fn new(pipelining: Pipelining) -> Self {
        Self { fake: Fake::new(pipelining), config: PublishConfig::default() }
    }

    pub(super) fn build(self) -> (World, LanesDriver) {
        let (fake, told) = (Arc::new(self.fake), Told::default());
        let hooks = Hooks::new(vec![told.hook()]);
        let (lanes, driver) = Lanes::new(fake.clone(), Arc::new(TestEnv::default()), self.config, hooks);
        (World { lanes, fake, told }, driver)
    }

    /// Starts the world with the driver running and the topic described.
    pub(super) async fn start(self) -> World {
        let (world, driver) = self.build();
        tokio::spawn(driver.run());
        world.lanes.topic_ready(&world.fake.description()).unwrap();
        world
    }
}

pub(super) async fn start(pipelining: Pipelining) -> World {
    Plan::new(pipelining).start().await
}

pub(super) const BOTH: [Pipelining; 2] = [Pipelining::OnePerKey, Pipelining::PerPartition];

pub(super) fn envelope(key: &str, id: &str) -> Envelope {
    Envelope::builder("T", "/test").id(id).key(key).build().unwrap()
}

pub(super) fn keyless(id: &str) -> Envelope {
    Envelope::builder("T", "/test").id(id).build().unwrap()
}

pub(super) fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

/// Lets the driver do all that it can without time passing.
pub(super) async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// Lets every back-off end.
pub(super) async fn rest() {
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    settle().await;
}

/// Polls a future once; `None` where it waits.
pub(super) fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl World {
    pub(super) fn publish(&self, key: &str, id: &str) -> crate::Publishing {
        self.lanes.publish(TOPIC, envelope(key, id))
    }

    /// Publishes, and expects room.
    pub(super) fn confirm(&self, key: &str, id: &str) -> crate::Confirmation {
        now(self.publish(key, id)).expect("no room").expect("refused at the call")
    }

    /// Publishes, and returns the error at the call, which counts as seen.
    pub(super) fn fails(&self, key: &str, id: &str) -> crate::Error {
        now(self.publish(key, id)).expect("waits").expect_err("admitted")
    }
}

pub(super) fn kind_of(confirmation: &mut crate::Confirmation) -> ErrorKind {
    now(confirmation).expect("not over").expect_err("stored").kind()
}

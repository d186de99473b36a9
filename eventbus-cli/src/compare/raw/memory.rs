//! Bare client in memory: a channel per topic, read by a task. A program that needs no bus would use this.

use std::sync::Arc;

use eventbus::{Envelope, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::race::{IN_FLIGHT, Race, Send1};
use crate::interrupt::Interrupt;

pub(super) async fn run(race: &Arc<Race>, interrupt: &Interrupt) -> Result<bool> {
    let mut readers = JoinSet::new();
    let mut topics = Vec::new();
    for _ in &race.plan.topics {
        let (to, from) = mpsc::channel(IN_FLIGHT);
        topics.push(to);
        readers.spawn(read(race.clone(), from));
    }
    Ok(race.run(Channels(topics), interrupt).await)
}

async fn read(race: Arc<Race>, mut from: mpsc::Receiver<(Envelope, u32)>) {
    while let Some((envelope, partition)) = from.recv().await {
        race.arrived(race.plan.index_of(&envelope), partition);
    }
}

struct Channels(Vec<mpsc::Sender<(Envelope, u32)>>);

impl Send1 for Channels {
    async fn send(&self, race: &Arc<Race>, index: usize) {
        let item = &race.plan.items[index];
        let sent = self.0[item.topic as usize].send((item.envelope.clone(), race.partition(index))).await;
        // A reader ends only after its publishers.
        if sent.is_ok() { race.confirmed(index) } else { race.failed() }
    }
}

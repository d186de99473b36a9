//! Plan of a run: its messages, made before the clock starts, so that the bus is measured and not the making of
//! envelopes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use conformance_tests::history;
use eventbus::{Envelope, Key, Result};

use super::{Keys, Payload, Workload};

/// Attribute that holds a message's place in the plan, if the id is the user's own.
pub(crate) const INDEX: &str = "compareindex";

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) topic: u32,
    /// The key's place in [`Plan::keys`].
    pub(crate) key: Option<u32>,
    /// The message's number, from 1 on, within its key; without a key, within the plan.
    pub(crate) number: u32,
    pub(crate) envelope: Envelope,
}

/// Messages of a run, and the publisher of each.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) keys: Vec<history::Key>,
    pub(crate) items: Vec<Item>,
    /// Messages that each publisher publishes, in order. All messages of a key belong to one publisher.
    pub(crate) publishers: Vec<Vec<u32>>,
}

impl Plan {
    /// Makes the messages of a fixed workload, on topics whose names begin with `prefix`.
    pub(crate) fn of(workload: &Workload, prefix: &str) -> Result<Self> {
        let topics: Vec<Arc<str>> = (0..workload.topics).map(|topic| format!("{prefix}.{topic}").into()).collect();
        let keys: Vec<Key> =
            (0..workload.key_count()).map(|key| Key::try_from(format!("key-{key}"))).collect::<Result<_>>()?;
        let mut items = Vec::with_capacity(workload.messages);
        let mut publishers = vec![Vec::new(); workload.publishers];
        for index in 0..workload.messages {
            let (key, number) = match workload.keys {
                Keys::Count(keys) => (Some(index % keys), index / keys + 1),
                Keys::None => (None, index + 1),
            };
            let topic = key.unwrap_or(index) % topics.len();
            let mut builder = Envelope::builder("Compared", "/compare").id(index.to_string()).sequence(number as u64);
            if let Some(key) = key {
                builder = builder.key(keys[key].clone());
            }
            let envelope = builder.payload(payload(workload.payload, &topics[topic], key, number, index)).build()?;
            items.push(Item { topic: topic as u32, key: key.map(|key| key as u32), number: number as u32, envelope });
            publishers[key.unwrap_or(index) % workload.publishers].push(index as u32);
        }
        let keys = keys.iter().map(|key| history::Key::new(key.as_bytes())).collect();
        Ok(Self { topics, keys, items, publishers })
    }

    /// Makes a plan of the user's own events: in their order, by one publisher on one topic.
    pub(crate) fn of_events(events: &[Envelope], prefix: &str) -> Result<Self> {
        let mut plan = Self {
            topics: vec![format!("{prefix}.0").into()],
            keys: Vec::new(),
            items: Vec::new(),
            publishers: Vec::new(),
        };
        let mut known: HashMap<&[u8], (u32, u32)> = HashMap::new();
        for (index, event) in (0_u32..).zip(events) {
            let (key, number) = match event.key() {
                None => (None, index + 1),
                Some(key) => {
                    let next = known.len() as u32;
                    let (place, last) = known.entry(key.as_bytes()).or_insert_with(|| {
                        plan.keys.push(history::Key::new(key.as_bytes()));
                        (next, 0)
                    });
                    *last += 1;
                    (Some(*place), *last)
                }
            };
            let envelope = event.clone().into_builder().extension(INDEX, index.to_string()).build()?;
            plan.items.push(Item { topic: 0, key, number, envelope });
        }
        plan.publishers.push((0..events.len() as u32).collect());
        Ok(plan)
    }

    /// Returns the place of a delivered envelope in the plan; `None` if the envelope names none.
    pub(crate) fn index_of(&self, envelope: &Envelope) -> Option<usize> {
        let index: usize = envelope.extension(INDEX).unwrap_or(envelope.id()).parse().ok()?;
        (index < self.items.len()).then_some(index)
    }
}

fn payload(payload: Payload, topic: &str, key: Option<usize>, number: usize, index: usize) -> Bytes {
    let key = key.unwrap_or_default();
    match payload {
        Payload::Bytes(size) => history::make_payload(topic, &history::Key::none(), index as u64, size),
        Payload::SmallJson => format!("{{\"aggregate\":{key},\"version\":{number},\"v\":{index}}}").into(),
        Payload::BurstJson => format!(
            "{{\"id\":{index},\"topic\":\"{topic}\",\"sequence\":{number},\"timestamp\":{},\"data\":\"message {index} of key {key}\"}}",
            1_700_000_000 + index
        )
        .into(),
    }
}

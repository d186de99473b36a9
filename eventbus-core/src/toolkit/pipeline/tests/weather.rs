//! Random failures: keys send again what came back, clients fail at any time and in any way, seed after seed. Refuted
//! where a key's records are stored out of order, twice, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fake::{self, Broker};
use super::{BATCH, LIMIT, topic};
use crate::backend::{Fate, Ticket, TicketSink};
use crate::runtime::Mutex;
use crate::toolkit::pipeline::failure::{DeliveryErrorKind, Rejected};
use crate::toolkit::pipeline::limits::TopicLimits;
use crate::toolkit::pipeline::producer::Producer;

const PARTITIONS: u64 = 3;
const KEYS: u64 = 4;
const EACH: u64 = 40;
/// Places of culprits: no batch with one of these is ever stored.
const CULPRITS: [u64; 3] = [7, 23, 24];

/// Numbers a record by its partition, its key, and its place in the key.
fn number(partition: u64, key: u64, place: u64) -> u64 {
    (partition * KEYS + key) * 1_000 + place
}

fn is_culprit(number: u64) -> bool {
    CULPRITS.contains(&(number % 1_000))
}

/// State of a key's lane: no record under way is followed by one that would be stored behind a hole.
#[derive(Default)]
struct Lane {
    /// The place of the next record that was never submitted.
    next: u64,
    /// Records on their way, by place: whether each still stands.
    under_way: BTreeMap<u64, bool>,
    /// Records that came back, to be sent again once nothing is under way.
    back: BTreeSet<u64>,
    done: BTreeSet<u64>,
}

struct Lanes {
    lanes: Mutex<Vec<Lane>>,
    broker: Broker,
}

impl TicketSink for Lanes {
    fn told(self: Arc<Self>, id: u64, fate: Fate) {
        let (lane, place) = ((id / 1_000) as usize, id % 1_000);
        let stored = || self.broker.log((id / 1_000 / KEYS) as u32).contains(&id);
        let lane = &mut self.lanes.lock()[lane];
        assert!(lane.under_way.remove(&place).is_some(), "{id} is told twice");
        let done = match fate {
            Fate::Stored { .. } => true,
            Fate::Refused(_) | Fate::Doubtful(_) => {
                assert!(is_culprit(id), "{id} is innocent");
                true
            }
            Fate::NotStored(_) => {
                assert!(!stored(), "{id} is stored");
                false
            }
            Fate::Unknown(_) => stored(),
        };
        if done {
            lane.done.insert(place);
        } else {
            lane.back.insert(place);
        }
        if !matches!(fate, Fate::Stored { .. }) {
            lane.under_way.range_mut(place..).for_each(|(_, stands)| *stands = false);
        }
    }

    fn stands(&self, id: u64) -> bool {
        self.lanes.lock()[(id / 1_000) as usize].under_way[&(id % 1_000)]
    }
}

struct Weather {
    producer: Arc<Producer<Broker>>,
    lanes: Arc<Lanes>,
    dice: StdRng,
}

impl Weather {
    fn new(seed: u64) -> Self {
        let (producer, broker) = (Producer::new(), Broker::default());
        producer.start(broker.clone());
        producer.known().set(&topic(), TopicLimits::new("t", LIMIT, false));
        let lanes = (0..PARTITIONS * KEYS).map(|_| Lane::default()).collect();
        let lanes = Arc::new(Lanes { lanes: Mutex::new(lanes), broker });
        Self { producer, lanes, dice: StdRng::seed_from_u64(seed) }
    }

    /// Submits the next record of a random lane, if it may.
    fn submit(&mut self) {
        let lane = self.dice.random_range(0..PARTITIONS * KEYS);
        let place = {
            let lane = &mut self.lanes.lanes.lock()[lane as usize];
            let again = lane.back.first().copied();
            let place = match again {
                Some(_) if !lane.under_way.is_empty() => return,
                Some(place) => place,
                None if lane.next == EACH || lane.under_way.values().any(|stands| !stands) => return,
                None => lane.next,
            };
            lane.back.remove(&place);
            lane.next = lane.next.max(place + 1);
            lane.under_way.insert(place, true);
            place
        };
        let id = lane * 1_000 + place;
        let ticket = Ticket::new(Arc::clone(&self.lanes) as Arc<dyn TicketSink>, id);
        self.producer.submit(fake::record((lane / KEYS) as u32, id), ticket);
    }

    /// Lets a random client report a batch of its records.
    fn answer(&mut self, calm: bool) {
        let broker = &self.lanes.broker;
        let clients = broker.clients();
        let with: Vec<_> =
            (0..clients).flat_map(|client| broker.with(client).into_iter().map(move |has| (client, has))).collect();
        if with.is_empty() {
            return;
        }
        let (client, (partition, count)) = with[self.dice.random_range(0..with.len())];
        let most = if broker.is_alone(client) { 1 } else { count };
        let batch = self.dice.random_range(1..=most);
        if broker.is_stuck(client, partition) {
            return;
        }
        let given = broker.given(client, partition);
        if given.iter().take(batch).any(|number| is_culprit(*number)) {
            return broker.fail(client, partition, batch, BATCH);
        }
        match self.dice.random_range(0..if calm { 40 } else { 8 }) {
            0 => broker.fail(client, partition, batch, DeliveryErrorKind::Unclear),
            1 => broker.store_unseen(client, partition),
            2 if !calm => broker.fail(client, partition, batch, DeliveryErrorKind::Vanished),
            _ => broker.store(client, partition, batch),
        }
    }

    fn is_done(&self) -> bool {
        self.lanes.lanes.lock().iter().all(|lane| lane.done.len() as u64 == EACH)
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_and_when_each_key_is_stored_once_and_in_order() {
    for seed in 0..60 {
        let mut weather = Weather::new(seed);
        let mut steps = 0;
        while !weather.is_done() {
            steps += 1;
            assert!(steps < 4_000_000, "seed {seed} comes to no end");
            match weather.dice.random_range(0..100) {
                0..50 => weather.submit(),
                50..80 => weather.answer(steps > 1_000),
                80 => {
                    let turned =
                        [Rejected::Full, Rejected::Over("over".into())][weather.dice.random_range(0..2)].clone();
                    let number =
                        number(weather.dice.random_range(0..PARTITIONS), 0, weather.dice.random_range(0..EACH));
                    weather.lanes.broker.turn(number, turned);
                }
                81 => {
                    let limit = LIMIT + weather.dice.random_range(0..2);
                    weather.producer.known().set(&topic(), TopicLimits::new("t", limit, false));
                }
                _ => tokio::task::yield_now().await,
            }
        }
        for partition in 0..PARTITIONS {
            let log = weather.lanes.broker.log(partition as u32);
            for key in 0..KEYS {
                let (first, last) = (number(partition, key, 0), number(partition, key, EACH));
                let stored: Vec<u64> = log.iter().copied().filter(|number| (first..last).contains(number)).collect();
                let expected: Vec<u64> = (first..last).filter(|number| !is_culprit(*number)).collect();
                assert_eq!(stored, expected, "seed {seed}");
            }
        }
        weather.producer.close().await;
    }
}

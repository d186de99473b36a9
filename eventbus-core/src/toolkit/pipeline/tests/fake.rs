//! Clients in memory. A test decides what each stores and reports; every call that must not happen panics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use super::topic;
use crate::backend::{Fate, Outbound, Ticket, TicketSink};
use crate::model::{Envelope, Error, ErrorKind, Position, ProducerId, Result, Stamp, Topic};
use crate::runtime::Mutex;
use crate::toolkit::pipeline::DeliveryReports;
use crate::toolkit::pipeline::Pipeline;
use crate::toolkit::pipeline::failure::{DeliveryError, DeliveryErrorKind, Rejected};
use crate::toolkit::pipeline::limits::TopicLimits;

pub(super) fn record(partition: u32, number: u64) -> Outbound {
    let envelope = Envelope::builder("T", "/t").key(format!("{partition}")).build().unwrap();
    Outbound::new(topic(), partition, Stamp::new(ProducerId::new(1), number), envelope)
}

/// Waits for events on another thread and on this one's tasks.
#[track_caller]
pub(super) fn until(holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let mut turns = 0;
        while !holds() {
            turns += 1;
            assert!(turns < 4_000_000, "it does not come to that: {caller}");
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
    }
}

/// The clients that were made, and the log.
#[derive(Clone, Default)]
pub(super) struct Broker(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    clients: Vec<Made>,
    log: BTreeMap<u32, Vec<u64>>,
    turned: HashMap<u64, Rejected>,
    makes_none: bool,
    gone: bool,
    learned: usize,
    /// Holds back refreshes of topics until it holds true.
    learning: Option<watch::Receiver<bool>>,
    /// A callback for when a record is measured.
    measured: Option<Box<dyn FnOnce() + Send>>,
    /// Whether ended clients report the records that they did not send.
    purges: bool,
    /// The reason that the next client to end gives for it.
    last_words: Option<DeliveryError>,
}

struct Made {
    limit: usize,
    alone: bool,
    reports: Arc<DeliveryReports>,
    /// Records given and not reported, by partition: index and number.
    given: BTreeMap<u32, Vec<(usize, u64)>>,
    failed: bool,
    stuck: BTreeSet<u32>,
    ended: bool,
}

/// One client, by its number.
pub(super) struct Client(Broker, usize);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.0.lock().clients[self.1].ended = true;
    }
}

impl Broker {
    pub(super) fn clients(&self) -> usize {
        self.0.lock().clients.len()
    }

    /// Returns the records that a client was given of a partition and did not report.
    pub(super) fn given(&self, client: usize, partition: u32) -> Vec<u64> {
        let world = self.0.lock();
        let given = world.clients[client].given.get(&partition);
        given.into_iter().flatten().map(|(_, number)| *number).collect()
    }

    /// Counts the records that a client was given and did not report, by partition.
    pub(super) fn with(&self, client: usize) -> Vec<(u32, usize)> {
        let world = self.0.lock();
        let given = world.clients[client].given.iter().map(|(partition, given)| (*partition, given.len()));
        given.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn is_alone(&self, client: usize) -> bool {
        self.0.lock().clients[client].alone
    }

    pub(super) fn limit(&self, client: usize) -> usize {
        self.0.lock().clients[client].limit
    }

    pub(super) fn is_ended(&self, client: usize) -> bool {
        self.0.lock().clients[client].ended
    }

    /// Returns whether a client has a hole in a partition, behind which it stores nothing.
    pub(super) fn is_stuck(&self, client: usize, partition: u32) -> bool {
        self.0.lock().clients[client].stuck.contains(&partition)
    }

    pub(super) fn log(&self, partition: u32) -> Vec<u64> {
        self.0.lock().log.get(&partition).cloned().unwrap_or_default()
    }

    /// Has the next client that ends say why.
    pub(super) fn says_at_its_end(&self, verdict: DeliveryErrorKind) {
        self.0.lock().last_words = Some(DeliveryError::new(verdict, "the reason"));
    }

    pub(super) fn learned(&self) -> usize {
        self.0.lock().learned
    }

    /// Has clients turn this record away, once.
    pub(super) fn turn(&self, number: u64, turned: Rejected) {
        self.0.lock().turned.insert(number, turned);
    }

    pub(super) fn make_none(&self, none: bool) {
        self.0.lock().makes_none = none;
    }

    pub(super) fn topic_is_gone(&self) {
        self.0.lock().gone = true;
    }

    pub(super) fn purge(&self) {
        self.0.lock().purges = true;
    }

    /// Holds back refreshes of topics until the sender sends true.
    pub(super) fn hold_learning(&self) -> watch::Sender<bool> {
        let (sender, receiver) = watch::channel(false);
        self.0.lock().learning = Some(receiver);
        sender
    }

    pub(super) fn when_measured(&self, done: impl FnOnce() + Send + 'static) {
        self.0.lock().measured = Some(Box::new(done));
    }

    fn take(&self, client: usize, partition: u32, count: usize, stores: bool) -> Vec<(usize, Position)> {
        let world = &mut *self.0.lock();
        // The client's end may have come on another thread.
        let given = world.clients[client].given.entry(partition).or_default();
        let taken: Vec<_> = given.drain(..count.min(given.len())).collect();
        let log = world.log.entry(partition).or_default();
        let mut places = Vec::new();
        for (index, number) in taken {
            places.push((index, Position::new(log.len() as u64)));
            if stores {
                log.push(number);
            }
        }
        places
    }

    fn has_failed(&self, client: usize, partition: u32) {
        let made = &mut self.0.lock().clients[client];
        made.failed = true;
        made.stuck.insert(partition);
    }

    fn reports(&self, client: usize) -> Arc<DeliveryReports> {
        Arc::clone(&self.0.lock().clients[client].reports)
    }

    /// Has a client report that it gets no further.
    pub(super) fn over(&self, client: usize) {
        self.reports(client).over();
    }

    /// Has a client store the next of its records, and report them.
    pub(super) fn store(&self, client: usize, partition: u32, count: usize) {
        let reports = self.reports(client);
        for (index, position) in self.take(client, partition, count, true) {
            reports.told(index, Ok(position));
        }
    }

    /// Has a client store its next record, and lose the report.
    pub(super) fn store_unseen(&self, client: usize, partition: u32) {
        self.has_failed(client, partition);
        let lost = self.take(client, partition, 1, true);
        let reports = self.reports(client);
        lost.into_iter()
            .for_each(|(index, _)| reports.told(index, Err(DeliveryError::new(DeliveryErrorKind::Unclear, "lost"))));
    }

    /// Has a client report its next records as failed.
    pub(super) fn fail(&self, client: usize, partition: u32, count: usize, verdict: DeliveryErrorKind) {
        self.has_failed(client, partition);
        let reports = self.reports(client);
        for (index, _) in self.take(client, partition, count, false) {
            reports.told(index, Err(DeliveryError::new(verdict, "it failed")));
        }
    }
}

impl Pipeline for Broker {
    type Client = Client;

    fn client(&self, limit: usize, alone: bool, reports: DeliveryReports) -> Result<Client> {
        let world = &mut *self.0.lock();
        if world.makes_none {
            return Err(Error::new(ErrorKind::InvalidConfig, "none is made"));
        }
        let reports = Arc::new(reports);
        world.clients.push(Made {
            limit,
            alone,
            reports,
            given: BTreeMap::new(),
            failed: false,
            stuck: BTreeSet::new(),
            ended: false,
        });
        Ok(Client(self.clone(), world.clients.len() - 1))
    }

    fn give(&self, client: &Client, name: &str, record: &Outbound, index: usize) -> Result<(), Rejected> {
        let (world, number) = (&mut *self.0.lock(), record.stamp.number);
        assert_eq!(name, record.topic.as_str());
        if let Some(turned) = world.turned.remove(&number) {
            return Err(turned);
        }
        for (other, made) in world.clients.iter().enumerate() {
            let has = made.given.get(&record.partition).is_some_and(|given| !given.is_empty());
            assert!(other == client.1 || !has, "{number}: {other} has records of the partition, too");
        }
        let made = &mut world.clients[client.1];
        assert!(!made.failed && !made.ended, "{number}: the client has failed");
        let given = made.given.entry(record.partition).or_default();
        given.push((index, number));
        Ok(())
    }

    fn end(client: Client) -> Option<DeliveryError> {
        let (broker, client) = (client.0.clone(), client.1);
        let (reports, rest) = {
            let world = &mut *broker.0.lock();
            let made = &mut world.clients[client];
            (Arc::clone(&made.reports), std::mem::take(&mut made.given))
        };
        if broker.0.lock().purges {
            for (index, _) in rest.into_values().flatten() {
                reports.told(index, Err(DeliveryError::new(DeliveryErrorKind::Unclear, "purged")));
            }
        }
        broker.0.lock().last_words.take()
    }

    fn most(&self, envelope: &Envelope) -> usize {
        let measured = self.0.lock().measured.take();
        measured.into_iter().for_each(|done| done());
        2 * envelope.size()
    }

    fn size(&self, record: &Outbound) -> usize {
        record.envelope.size()
    }

    fn assumed(&self, topic: &Topic) -> TopicLimits {
        TopicLimits::new(topic.as_str(), 1_000, false)
    }

    async fn is_gone(&self, _: &Topic) -> bool {
        self.0.lock().gone
    }

    async fn refresh(&self, _: &Topic) {
        let learning = self.0.lock().learning.take();
        self.0.lock().learned += 1;
        if let Some(mut learning) = learning {
            learning.wait_for(|done| *done).await.unwrap();
        }
    }
}

type Again = Box<dyn Fn(u64) + Send>;

/// Fates that tickets were told, in the order of telling.
#[derive(Default)]
pub(super) struct Told {
    fates: Mutex<Vec<(u64, Fate)>>,
    fallen: Mutex<Vec<u64>>,
    again: Mutex<Option<Again>>,
}

impl TicketSink for Told {
    fn told(self: Arc<Self>, id: u64, fate: Fate) {
        self.fates.lock().push((id, fate));
        let again = self.again.lock().take();
        if let Some(again) = again {
            again(id);
            self.again.lock().get_or_insert(again);
        }
    }

    fn stands(&self, id: u64) -> bool {
        !self.fallen.lock().contains(&id)
    }
}

impl Told {
    pub(super) fn ticket(self: &Arc<Self>, id: u64) -> Ticket {
        Ticket::new(Arc::clone(self) as Arc<dyn TicketSink>, id)
    }

    pub(super) fn len(&self) -> usize {
        self.fates.lock().len()
    }

    /// Calls this from inside each telling that is not itself inside another.
    pub(super) fn when_told(&self, again: impl Fn(u64) + Send + 'static) {
        *self.again.lock() = Some(Box::new(again));
    }

    /// Makes the record of this number stand no longer.
    pub(super) fn fall(&self, id: u64) {
        self.fallen.lock().push(id);
    }

    /// Takes the fates told since the last call: numbers, with `stored` or what else was told, in order of numbers.
    pub(super) fn take(&self) -> Vec<(u64, &'static str)> {
        let name = |fate: &Fate| match fate {
            Fate::Stored { .. } => "stored",
            Fate::NotStored(error) if error.kind() == ErrorKind::Closed => "closed",
            Fate::NotStored(_) => "not stored",
            Fate::Refused(error) => error.kind().as_str(),
            Fate::Doubtful(_) => "doubtful",
            Fate::Unknown(_) => "unknown",
        };
        let mut told: Vec<_> = self.fates.lock().drain(..).map(|(id, fate)| (id, name(&fate))).collect();
        told.sort_unstable();
        told
    }
}

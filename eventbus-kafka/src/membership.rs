//! [`KafkaMember`]: one member of a group, as the core sees it (S5).
//!
//! # Invariants
//!
//! - Only what is assigned now is committed, under no lower epoch than before: the coordinator would take more from a live
//!   member.
//! - A lease counts from before the sending of the last commit that the coordinator accepted. A member that says nothing for a third
//!   of it says its last word again; one that is not known any more has lost everything.
//! - Commits wait for the coordinator on a thread of their own, one request at a time, so a later one is later.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use async_trait::async_trait;
use eventbus_core::backend::{Commit, GroupEvent, Join, LogState, Membership};
use eventbus_core::{Error, ErrorKind, Position, Result};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use crate::config::Protocol;
use crate::connection::{Link, refused_setting};
use crate::consumer::{Ask, Command, GroupConsumer, Item, Seat, not_held, run};
use crate::error::{gone, to_core};
use crate::note::Stored;
use crate::topics::watermarks;
use crate::wire;

/// What a hand-over may take longer than the core's drain, until the coordinator is answered without it.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// How soon a probe that was not accepted is sent again.
const AGAIN: Duration = Duration::from_millis(250);

type Reply = oneshot::Sender<Result<()>>;

/// What the committing thread is asked for.
enum Order {
    Commit(Commit, Reply),
    /// Give up a partition, behind all commits of it.
    Release(u32, Reply),
}

/// One member of a group.
pub(crate) struct KafkaMember {
    seat: Seat,
    items: Mutex<mpsc::UnboundedReceiver<Item>>,
    commands: std_mpsc::Sender<Command>,
    orders: std_mpsc::Sender<Order>,
}

impl KafkaMember {
    pub(crate) fn join(link: &Arc<Link>, join: Join) -> Result<Self> {
        let topic = join.topic.spec.validate()?;
        let config = &link.config;
        let most = config.max_poll_interval / 2;
        if join.drain_deadline + DRAIN_MARGIN > most {
            let message =
                format!("drain_deadline: expected at most {:?}, half of max_poll_interval", most - DRAIN_MARGIN);
            return Err(Error::new(ErrorKind::UnsafeConfig, message).with("setting", "drain_deadline"));
        }
        let mut client = config.consumer(&config.group(&join.group));
        client.set("client.id", &join.member);
        if config.protocol != Protocol::Broker {
            client.set("session.timeout.ms", join.session_timeout.as_millis().to_string());
            client.set("heartbeat.interval.ms", (join.session_timeout.as_millis() / 10).max(1).to_string());
        }
        let (sender, items) = mpsc::unbounded_channel();
        let ask = Ask {
            link: Arc::clone(link),
            topic: config.topic(&topic),
            member: join.member,
            session: join.session_timeout,
            drain: join.drain_deadline + DRAIN_MARGIN,
            eager: config.protocol == Protocol::Eager,
        };
        let seat = Seat::new(ask, sender);
        let consumer = GroupConsumer::from_config_and_context(&client, seat.clone());
        let consumer = consumer.map_err(|error| refused_setting(&error))?;
        consumer.subscribe(&[&seat.topic]).map_err(|error| to_core(&error, "subscribing"))?;
        let (commands, received) = std_mpsc::channel();
        let (orders, waiting) = std_mpsc::channel();
        let polling = seat.clone();
        spawn("eventbus-poll", move || run(&polling, consumer, &received))?;
        let committing = seat.clone();
        spawn("eventbus-commit", move || commit_all(&committing, &waiting))?;
        Ok(Self { seat, items: Mutex::new(items), commands, orders })
    }

    async fn order(&self, order: impl FnOnce(Reply) -> Order) -> Result<()> {
        let (reply, done) = oneshot::channel();
        self.orders.send(order(reply)).map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }

    fn flow(&self, partition: u32, paused: bool) {
        let Some(consumer) = self.seat.consumer() else { return };
        self.seat.flow(&consumer, partition, paused);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    started.map(drop).map_err(|error| Error::new(ErrorKind::Backend, format!("no thread could be started: {error}")))
}

impl fmt::Debug for KafkaMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaMember").field("member", &self.seat.member).finish_non_exhaustive()
    }
}

#[async_trait]
impl Membership for KafkaMember {
    async fn next(&self) -> Result<GroupEvent> {
        let mut items = self.items.lock().await;
        loop {
            match items.recv().await {
                Some(Item::Event(event)) => return Ok(event),
                Some(Item::Records(records)) => {
                    let records = self.seat.current(records);
                    if !records.is_empty() {
                        return Ok(GroupEvent::Records(records));
                    }
                }
                Some(Item::CaughtUp(read, partition, next)) => {
                    if self.seat.reads(partition, read) {
                        return Ok(GroupEvent::CaughtUp { partition, next });
                    }
                }
                Some(Item::Over(error)) => return Err(error),
                None => return Err(gone()),
            }
        }
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        let seat = self.seat.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let log = watermarks(&seat.link, &seat.topic, partition);
            let mut log = log.map_err(|error| to_core(&error, "asking for the ends of the log"))?;
            log.incarnation = seat.incarnation(partition, &log)?;
            Ok::<_, Error>(log)
        });
        let log = looked.await.map_err(|_| gone())??;
        // Where the log does not reach, the core learns it from what is returned.
        let from = wire::offset(from.clamp(log.first, log.end.max(log.first)));
        let (reply, begun) = oneshot::channel();
        self.commands.send(Command::Read(partition, from, reply)).map_err(|_| gone())?;
        begun.await.map_err(|_| gone())??;
        Ok(log)
    }

    fn pause(&self, partition: u32) {
        self.flow(partition, true);
    }

    fn resume(&self, partition: u32) {
        self.flow(partition, false);
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        self.order(|reply| Order::Commit(commit, reply)).await
    }

    async fn release(&self, partition: u32) -> Result<()> {
        self.order(|reply| Order::Release(partition, reply)).await
    }

    async fn leave(&self) -> Result<()> {
        let (reply, left) = oneshot::channel();
        if self.commands.send(Command::Leave(reply)).is_ok() {
            let _ = left.await;
        }
        Ok(())
    }
}

/// Commits what is asked for, all that waits in one request, and says the last words again in every third of a lease.
fn commit_all(seat: &Seat, waiting: &std_mpsc::Receiver<Order>) {
    let lease = seat.link.config.lease_of(seat.session);
    let mut probe_at = Instant::now() + lease / 3;
    loop {
        let first = match waiting.recv_timeout(probe_at.saturating_duration_since(Instant::now())) {
            Ok(first) => Some(first),
            Err(std_mpsc::RecvTimeoutError::Timeout) => None,
            Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
        };
        let (mut commits, mut releases) = (Vec::new(), Vec::new());
        for order in first.into_iter().chain(waiting.try_iter()) {
            match order {
                Order::Commit(commit, reply) => commits.push((commit, reply)),
                Order::Release(partition, reply) => releases.push((partition, reply)),
            }
        }
        if let Some(consumer) = seat.consumer() {
            commit(seat, &consumer, lease, commits);
            let begun = Instant::now();
            if begun >= probe_at {
                let said = say_again(seat, &consumer, lease).unwrap_or(true);
                probe_at = if said { begun + lease / 3 } else { Instant::now() + AGAIN };
            }
        } else {
            // Not begun yet, or over.
            commits.into_iter().for_each(|(_, reply)| drop(reply.send(Err(not_held()))));
            probe_at = Instant::now() + lease / 3;
        }
        for (partition, reply) in releases {
            seat.release(partition);
            let _ = reply.send(Ok(()));
        }
    }
}

/// A commit of all that was committed last, unchanged: accepted, it shows that the member is still one. It also sets right what a
/// late copy of an earlier request has moved back: a request that timed out is sent again by the client, and the coordinator may
/// come upon the first of them after all others. `None`: there is nothing to say.
fn say_again(seat: &Seat, consumer: &GroupConsumer, lease: Duration) -> Option<bool> {
    let mut list = TopicPartitionList::new();
    for (partition, held) in &seat.state().held {
        let Some((offset, text)) = &held.last else { continue };
        entry(&mut list, &seat.topic, *partition, *offset, text).ok()?;
    }
    (list.count() > 0).then(|| send(seat, consumer, &list, lease).is_ok())
}

/// Commits in one request, and tells who asked.
fn commit(seat: &Seat, consumer: &GroupConsumer, lease: Duration, commits: Vec<(Commit, Reply)>) {
    let mut list = TopicPartitionList::new();
    let mut sent: HashMap<u32, (Commit, String, Reply)> = HashMap::new();
    for (commit, reply) in commits {
        match prepare(seat, &commit) {
            Ok(text) => {
                let _ = entry(&mut list, &seat.topic, commit.partition, wire::offset(commit.next), &text);
                if let Some((_, _, earlier)) = sent.insert(commit.partition, (commit, text, reply)) {
                    // Superseded within one request.
                    let _ = earlier.send(Err(Error::new(ErrorKind::Unavailable, "a later commit took its place")));
                }
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }
    if sent.is_empty() {
        return;
    }
    let outcome = send(seat, consumer, &list, lease);
    for (_, (commit, text, reply)) in sent {
        if let Ok(number) = outcome {
            stored(seat, &commit, text, number);
        }
        let _ = reply.send(outcome.clone().map(drop));
    }
}

/// The metadata of a commit, where it may be made.
fn prepare(seat: &Seat, commit: &Commit) -> Result<String> {
    let mut state = seat.state();
    let held = state.held.get_mut(&commit.partition).ok_or_else(not_held)?;
    if commit.epoch < held.epoch || (commit.claim && commit.epoch == held.epoch && held.last.is_none()) {
        return Err(Error::new(ErrorKind::Fenced, "the epoch has been superseded"));
    }
    let next = wire::offset(commit.next);
    let print = held.seen.iter().take_while(|print| print.offset < next).last().copied().or(held.print);
    let stored = Stored {
        epoch: commit.epoch,
        incarnation: held.incarnation.clone(),
        print: print.filter(|print| print.offset < next),
        owner: seat.member.clone(),
        note: commit.note.clone(),
    };
    Ok(stored.encode())
}

/// A commit is in force: what it says is what is said again, and prints below it have done their work.
fn stored(seat: &Seat, commit: &Commit, text: String, number: u64) {
    let mut state = seat.state();
    let Some(held) = state.held.get_mut(&commit.partition).filter(|held| held.number <= number) else { return };
    let next = wire::offset(commit.next);
    held.epoch = commit.epoch;
    while let Some(print) = held.seen.front().copied().filter(|print| print.offset < next) {
        held.print = Some(print);
        held.seen.pop_front();
    }
    held.print = held.print.filter(|print| print.offset < next);
    held.last = Some((next, text));
}

/// One request to the coordinator. Accepted, it extends the leases of all that was owned then, from before it was sent. The
/// number of the assignment that it was sent under.
fn send(seat: &Seat, consumer: &GroupConsumer, list: &TopicPartitionList, lease: Duration) -> Result<u64> {
    let number = {
        let mut state = seat.state();
        state.committing = list.elements().iter().filter_map(|e| u32::try_from(e.partition()).ok()).collect();
        // Between the look and the word a partition may have been lost; then it is not ours to commit.
        if let Some(lost) = state.committing.iter().find(|partition| !state.held.contains_key(partition)) {
            tracing::debug!(target: "eventbus", partition = lost, "lost before its commit was sent");
            state.committing.clear();
            return Err(Error::new(ErrorKind::Unavailable, "a partition was lost before the commit was sent"));
        }
        state.assignments
    };
    let before = Instant::now();
    let sent = consumer.commit(list, CommitMode::Sync);
    let mut state = seat.state();
    state.committing.clear();
    if let Err(error) = sent {
        drop(state);
        return Err(understood(seat, &error, number));
    }
    for held in state.held.values().filter(|held| held.number <= number) {
        held.lease.extend(before + lease);
    }
    drop(state);
    seat.connected(true);
    Ok(number)
}

/// What a refusal of a commit means, for the member of that assignment and for who asked.
fn understood(seat: &Seat, error: &KafkaError, number: u64) -> Error {
    match error.rdkafka_error_code() {
        Some(Code::UnknownMemberId | Code::FencedInstanceId | Code::FencedMemberEpoch) => {
            seat.lose_until(number);
            Error::new(ErrorKind::Fenced, format!("the coordinator says: {error}"))
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            seat.interrupt();
            Error::new(ErrorKind::UnknownTopic, "no such topic")
        }
        Some(Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed) => to_core(error, "committing"),
        Some(Code::OffsetMetadataTooLarge) => Error::new(ErrorKind::Backend, format!("the note is too large: {error}")),
        // A rebalance under way, a coordinator that moves or is away: the same may be taken later.
        _ => Error::new(ErrorKind::Unavailable, format!("committing: {error}")),
    }
}

fn entry(list: &mut TopicPartitionList, topic: &str, partition: u32, offset: i64, text: &str) -> Result<()> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    if list.find_partition(topic, number).is_none() {
        list.add_partition(topic, number);
    }
    let failed = |error: KafkaError| to_core(&error, "committing");
    let mut entry = list.find_partition(topic, number).ok_or_else(not_held)?;
    entry.set_offset(Offset::Offset(offset)).map_err(failed)?;
    entry.set_metadata(text);
    Ok(())
}

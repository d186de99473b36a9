//! Members over a client in memory, on tokio's paused clock; each test drives their threads. Each test is named for
//! what it refutes.

use std::sync::{Arc, mpsc as threads};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use tokio::time::{advance, timeout};

use super::commit_metadata::{CommitMetadata, Fingerprint};
use super::commits::{Committing, Order};
use super::member::Member;
use super::poll::Polling;
use super::rebalance::{RebalanceListener, Revocation};
use super::{CommitError, MemberConfig, Polled};
use crate::backend::{Assignment, Commit, GroupEvent, LogState, Membership};
use crate::model::{ErrorKind, Position, Result};

mod commits;
mod delivery;
mod fake;
mod hand_over;
mod inherited;
mod leaving;
mod lookup;
mod renewed;

use fake::{Broker, Fake, record};

const SESSION: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(9);
const DRAIN: Duration = Duration::from_secs(3);

/// A member whose threads do only what a test lets them.
struct Rig {
    broker: Arc<Broker>,
    /// The commits sent in each request.
    sent: mpsc::UnboundedReceiver<Vec<(u32, u64)>>,
    /// The answers to the requests, in turn; a request hangs until it has one.
    answers: threads::Sender<Result<(), CommitError>>,
    member: Arc<Member<Fake>>,
    listener: RebalanceListener<Fake>,
    client: Option<Arc<Fake>>,
    polling: Option<Polling<Fake>>,
    committing: Option<Committing<Fake>>,
}

fn ask() -> MemberConfig {
    MemberConfig { member: "me".into(), session: SESSION, lease: LEASE, drain: DRAIN, inherits: false }
}

impl Rig {
    fn new() -> Self {
        Self::with(ask())
    }

    fn with(config: MemberConfig) -> Self {
        let (broker, sent, answers) = Broker::new();
        let (member, polling, committing, _) = Member::parts(config, |listener| Ok(broker.client(listener))).unwrap();
        let (listener, client) = (polling.listener.clone(), Some(Arc::clone(&polling.client)));
        broker.said();
        let (polling, committing) = (Some(polling), Some(committing));
        Self { broker, sent, answers, member: member.into(), listener, client, polling, committing }
    }

    async fn event(&self) -> GroupEvent {
        timeout(Duration::from_secs(3_600), self.member.next()).await.expect("an event comes").unwrap()
    }

    fn silent(&self) {
        if let Some(event) = self.member.next().now_or_never() {
            panic!("{event:?}");
        }
    }

    fn turn(&mut self) {
        assert!(self.polling.as_mut().unwrap().turn().is_continue());
    }

    /// Has the coordinator assign partitions, and tells the core.
    async fn given(&self, partitions: &[u32]) -> Vec<Assignment> {
        self.listener.assigned(partitions);
        match self.event().await {
            GroupEvent::Assigned(assigned) => assigned,
            other => panic!("{other:?}"),
        }
    }

    async fn read(&mut self, partition: u32, from: u64) -> Result<LogState> {
        let member = Arc::clone(&self.member);
        let reading = tokio::spawn(async move { member.read(partition, Position::new(from)).await });
        while !reading.is_finished() {
            self.turn();
            yield_now().await;
        }
        reading.await.unwrap()
    }

    /// Runs one turn of the committing thread, whose request is answered so.
    fn commits(&mut self, answer: Result<(), CommitError>, commits: Vec<Commit>) -> Vec<Result<()>> {
        self.answers.send(answer).unwrap();
        let (orders, done): (Vec<_>, Vec<_>) = commits.into_iter().map(order).unzip();
        self.committing.as_mut().unwrap().turn(orders.into_iter());
        done.into_iter().map(|mut done| done.try_recv().unwrap()).collect()
    }

    /// Does the same on a thread of its own, where the request hangs until it is answered; it was sent when this
    /// returns.
    async fn hanging(&mut self, commit: Commit) -> (JoinHandle<Committing<Fake>>, oneshot::Receiver<Result<()>>) {
        let (order, done) = order(commit);
        let turn = self.turn_apart(vec![order]);
        self.request().await;
        (turn, done)
    }

    fn turn_apart(&mut self, orders: Vec<Order>) -> JoinHandle<Committing<Fake>> {
        let mut committing = self.committing.take().unwrap();
        spawn_blocking(move || {
            committing.turn(orders.into_iter());
            committing
        })
    }

    async fn answered(&mut self, answer: Result<(), CommitError>, turn: JoinHandle<Committing<Fake>>) {
        self.answers.send(answer).unwrap();
        self.committing = Some(turn.await.unwrap());
    }

    async fn request(&mut self) -> Vec<(u32, u64)> {
        timeout(Duration::from_secs(3_600), self.sent.recv()).await.expect("a request is sent").unwrap()
    }

    fn sent(&mut self) -> Vec<Vec<(u32, u64)>> {
        std::iter::from_fn(|| self.sent.try_recv().ok()).collect()
    }
}

fn order(commit: Commit) -> (Order, oneshot::Receiver<Result<()>>) {
    let (reply, done) = oneshot::channel();
    (Order::Commit(commit, reply), done)
}

fn commit(partition: u32, next: u64, epoch: u64) -> Commit {
    Commit::new(partition, Position::new(next), epoch, "note".into())
}

fn fenced() -> Result<(), CommitError> {
    Err(CommitError::Fenced("unknown".into()))
}

fn away() -> Result<(), CommitError> {
    Err(CommitError::Later("away".into()))
}

fn kinds(outcomes: Vec<Result<()>>) -> Vec<Option<ErrorKind>> {
    outcomes.into_iter().map(|outcome| outcome.err().map(|error| error.kind())).collect()
}

fn lost(event: GroupEvent) -> Vec<u32> {
    let GroupEvent::Lost(mut lost) = event else { panic!("{event:?}") };
    lost.sort_unstable();
    lost
}

fn revoked(event: GroupEvent) -> Vec<u32> {
    let GroupEvent::Revoked(mut revoked) = event else { panic!("{event:?}") };
    revoked.sort_unstable();
    revoked
}

fn positions(event: GroupEvent) -> Vec<u64> {
    let GroupEvent::Records(records) = event else { panic!("{event:?}") };
    records.iter().map(|record| record.position.get()).collect()
}

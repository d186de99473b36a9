//! One member of a group, as the core sees it: [`Member`] (S5).
//!
//! Invariant: items of a read or an ownership that is over are not handed out.

use std::fmt;
use std::sync::{Arc, mpsc as threads};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::commits::{Committing, Order, Reply};
use super::containment::{contained, unanswered};
use super::poll::{JOINS, LETS_GO, PollCommand, Polling};
use super::rebalance::{MemberItem, RebalanceListener};
use super::{Client, MemberConfig, member_left, not_held};
use crate::backend::{Commit, GroupEvent, LogState, Membership};
use crate::model::{Error, ErrorKind, Position, Result};

/// The longest wait for a member to leave: what its thread waits for, and as long again for the client to end.
const LEAVES: Duration = Duration::from_secs(2 * (JOINS.as_secs() + LETS_GO.as_secs()));

/// One member of a group, with two threads: one polls its client, the other commits. Dropped, it leaves.
pub struct Member<C> {
    listener: RebalanceListener<C>,
    items: Mutex<mpsc::UnboundedReceiver<MemberItem>>,
    commands: threads::Sender<PollCommand>,
    orders: threads::Sender<Order>,
}

impl<C> fmt::Debug for Member<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("member", &self.listener.config().member).finish_non_exhaustive()
    }
}

impl<C: Client> Member<C> {
    /// Makes a client, lets it join the group and starts its threads. The client must report the coordinator's
    /// decisions to the [`RebalanceListener`]. Must be called within a runtime, whose blocking threads look up the
    /// state of new partitions.
    ///
    /// # Errors
    /// The errors of `make` and [`Client::subscribe`]; `Backend` where the system gives no thread.
    pub fn join(ask: MemberConfig, make: impl FnOnce(RebalanceListener<C>) -> Result<C>) -> Result<Self> {
        let (member, polling, committing, waiting) = Self::parts(ask, make)?;
        spawn("eventbus-poll", move || polling.run())?;
        spawn("eventbus-commit", move || committing.run(&waiting))?;
        Ok(member)
    }

    pub(super) fn parts(ask: MemberConfig, make: impl FnOnce(RebalanceListener<C>) -> Result<C>) -> Result<Parts<C>> {
        let (sender, items) = mpsc::unbounded_channel();
        let listener = RebalanceListener::new(ask, sender);
        let client = Arc::new(make(listener.clone())?);
        listener.taken_by(&client);
        client.subscribe()?;
        let (commands, received) = threads::channel();
        let (orders, waiting) = threads::channel();
        let polling =
            Polling { listener: listener.clone(), client, commands: received, batch: Vec::new(), over: false };
        let committing = Committing::new(listener.clone());
        Ok((Self { listener, items: Mutex::new(items), commands, orders }, polling, committing, waiting))
    }

    async fn order(&self, order: impl FnOnce(Reply) -> Order) -> Result<()> {
        let (reply, done) = oneshot::channel();
        self.orders.send(order(reply)).map_err(|_| self.listener.left())?;
        done.await.map_err(|_| unanswered())?
    }

    fn flow(&self, partition: u32, paused: bool) {
        if let Some(client) = self.listener.client() {
            client.pause(partition, paused);
        }
    }
}

/// A member, and the state of its threads.
pub(super) type Parts<C> = (Member<C>, Polling<C>, Committing<C>, threads::Receiver<Order>);

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    started.map(drop).map_err(|error| Error::new(ErrorKind::Backend, format!("no thread could be started: {error}")))
}

#[async_trait]
impl<C: Client> Membership for Member<C> {
    async fn next(&self) -> Result<GroupEvent> {
        let mut items = self.items.lock().await;
        loop {
            match items.recv().await.ok_or_else(member_left)? {
                MemberItem::Event(event) => return Ok(event),
                MemberItem::Records(records) => {
                    let records = self.listener.current(records);
                    if !records.is_empty() {
                        return Ok(GroupEvent::Records(records));
                    }
                }
                MemberItem::CaughtUp(read, partition, next) => {
                    if self.listener.state().reads(partition, read) {
                        return Ok(GroupEvent::CaughtUp { partition, next });
                    }
                }
                MemberItem::Over(error) => return Err(error),
            }
        }
    }

    async fn read(&self, partition: u32, from: Position) -> Result<LogState> {
        let listener = self.listener.clone();
        let looked = tokio::task::spawn_blocking(move || {
            contained("a lookup", || {
                let client = listener.client().ok_or_else(not_held)?;
                listener.log(&client, partition)
            })
        });
        let log = looked.await.map_err(|_| member_left())???;
        // A position outside the log is moved into it; the core learns of that from the returned log.
        let from = from.clamp(log.first, log.end.max(log.first));
        let (reply, begun) = oneshot::channel();
        self.commands.send(PollCommand::Read(partition, from, reply)).map_err(|_| self.listener.left())?;
        begun.await.map_err(|_| unanswered())??;
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

    /// Returns within 14 s, even if the client does not end: its thread then goes on by itself.
    async fn leave(&self) -> Result<()> {
        let (reply, left) = oneshot::channel();
        if self.commands.send(PollCommand::Leave(reply)).is_ok() {
            let _ = tokio::time::timeout(LEAVES, left).await;
        }
        Ok(())
    }
}

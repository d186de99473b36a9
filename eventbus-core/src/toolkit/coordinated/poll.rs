//! The thread that polls a member's client: takes commands, answers the coordinator, leaves.
//!
//! Invariants:
//! * the thread never waits for the coordinator nor for the core: it serves them in turns;
//! * leaving ends in bounded time, whatever others do with the client meanwhile;
//! * a partition that was claimed and not released stays the member's until its lease would have run out.

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::containment::contained;
use super::delivery::{BATCH, Batch};
use super::rebalance::{MemberItem, RebalanceListener};
use super::{Client, Polled};
use crate::model::{Position, Result};

/// The longest wait for an event of the client: commands are looked at in between.
const TICK: Duration = Duration::from_millis(10);

/// The longest wait of a member that leaves for an answer to its joining.
pub(super) const JOINS: Duration = Duration::from_secs(2);

/// The longest wait after that for others to let go of the client. The last one to do so ends it.
pub(super) const LETS_GO: Duration = Duration::from_secs(5);

pub(super) enum PollCommand {
    /// Deliver from this position on.
    Read(u32, Position, oneshot::Sender<Result<()>>),
    /// Leave, and reply when it is done.
    Leave(oneshot::Sender<()>),
}

pub(super) struct Polling<C: Client> {
    pub(super) listener: RebalanceListener<C>,
    pub(super) client: Arc<C>,
    pub(super) commands: mpsc::Receiver<PollCommand>,
    pub(super) batch: Batch,
    /// Whether the client came to its end. Such a client keeps no place in its group.
    pub(super) over: bool,
}

/// Whether the thread goes on; if not, the reply to a caller that waits for its end, if there is one.
type Goes = ControlFlow<Option<oneshot::Sender<()>>>;

impl<C: Client> Polling<C> {
    /// Polls until the member leaves. Drops the client on this thread, where its last callbacks come. A panic ends the
    /// member, and its error is told.
    pub(super) fn run(mut self) {
        let listener = self.listener.clone();
        let polled = contained("polling", || {
            loop {
                if let ControlFlow::Break(left) = self.turn() {
                    return left;
                }
            }
        });
        let reply = polled.unwrap_or_else(|error| {
            listener.fail(error);
            None
        });
        if let Err(error) = contained("leaving", || self.leave()) {
            listener.fail(error);
        }
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    /// Serves the coordinator, then takes a command or the records that are there.
    pub(super) fn turn(&mut self) -> Goes {
        self.listener.hand_over(&self.client);
        match self.commands.try_recv() {
            Ok(PollCommand::Read(partition, from, reply)) => {
                let _ = reply.send(self.listener.begin(&self.client, partition, from));
                // All partitions of an assignment begin before the next poll.
                return ControlFlow::Continue(());
            }
            Ok(PollCommand::Leave(reply)) => return ControlFlow::Break(Some(reply)),
            Err(mpsc::TryRecvError::Disconnected) => return ControlFlow::Break(None),
            Err(mpsc::TryRecvError::Empty) => {}
        }
        self.listener.rejoin(&self.client);
        if self.listener.is_full() {
            std::thread::sleep(Duration::from_millis(1));
            return ControlFlow::Continue(());
        }
        let goes = self.burst();
        self.listener.flush(&mut self.batch);
        goes
    }

    /// Takes the events that are there, at most a batch.
    fn burst(&mut self) -> Goes {
        let Self { listener, client, batch, over, .. } = self;
        let mut wait = TICK;
        for _ in 0..BATCH {
            match client.poll(std::mem::take(&mut wait)) {
                Polled::Record(record) => {
                    if batch.is_empty() {
                        listener.connected(client, true);
                    }
                    listener.accept(&record, batch);
                    continue;
                }
                Polled::End(partition, next) => {
                    listener.flush(batch);
                    listener.caught_up(partition, next);
                }
                Polled::Interrupted => {
                    listener.flush(batch);
                    listener.interrupt();
                }
                Polled::Disconnected => {
                    listener.flush(batch);
                    listener.connected(client, false);
                }
                Polled::Refused(error) => {
                    listener.flush(batch);
                    listener.refused(&error);
                }
                Polled::Over(error) => {
                    listener.flush(batch);
                    listener.hand(MemberItem::Over(error));
                    *over = true;
                    return ControlFlow::Break(None);
                }
                Polled::Nothing => {}
            }
            break;
        }
        ControlFlow::Continue(())
    }

    pub(super) fn leave(self) {
        let Self { listener, client, commands, over, .. } = self;
        // Callers are told from now on that the member is gone.
        drop(commands);
        let kept = listener.close() && !over;
        poll_until(&*client, Instant::now() + listener.config().lease, || !kept);
        // The client's last callbacks are answered at once.
        listener.let_go();
        // A member that leaves before it has joined stays in the group until its session ends, and others make room for
        // it.
        poll_until(&*client, Instant::now() + JOINS, || listener.state().assignments > 0);
        client.leave();
        let_go(client);
    }
}

/// Polls a client whose records nobody wants, so that it stays in its group.
fn poll_until(client: &impl Client, until: Instant, over: impl Fn() -> bool) {
    while !over() && Instant::now() < until {
        let _ = client.poll(TICK);
    }
}

/// Drops the client once no other thread has it. A call that commits or pauses has it for a moment; but a commit may
/// have it as long as the coordinator is away: it is not waited for, and ends the client on its own thread.
fn let_go<C>(mut client: Arc<C>) {
    let until = Instant::now() + LETS_GO;
    loop {
        match Arc::try_unwrap(client) {
            Ok(client) => return drop(client),
            Err(_) if Instant::now() > until => return,
            Err(shared) => client = shared,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

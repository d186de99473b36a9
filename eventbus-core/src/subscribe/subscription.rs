//! Handle on one member of a group: [`Subscription`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::options::StartFrom;
use super::pool::PartitionView;
use super::session::{DrainReport, SessionCommand};
use super::shield::Scope;
use super::worker::Workers;
use crate::backend::{Backend, GroupDescription, GroupPartition};
use crate::model::{Error, ErrorKind, Group, Position, Result, Topic};
use crate::runtime::poll_until;

/// Time in which a broker may not know yet that a member has joined.
const JOINING: Duration = Duration::from_secs(10);

/// A running subscription. Dropping it closes it with a deadline of zero: running handlers' futures are dropped and
/// their envelopes are delivered again (S7). Call [`drain`](Self::drain) to finish running handlers first.
#[must_use = "dropping a subscription stops it"]
pub struct Subscription {
    pub(crate) inner: Arc<Running>,
}

/// The state that a subscription's handle and the bus share.
pub(crate) struct Running {
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) member: Arc<str>,
    pub(crate) commands: mpsc::Sender<SessionCommand>,
    pub(crate) ended: watch::Receiver<Option<Option<Error>>>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) backend: Arc<dyn Backend>,
    /// The user's runtime, on which handlers run.
    pub(crate) handlers: Handle,
}

impl Subscription {
    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.inner.topic
    }

    /// Returns the group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.inner.group
    }

    /// Returns this member's name.
    #[must_use]
    pub fn member(&self) -> &str {
        &self.inner.member
    }

    /// Starts no more handlers until [`resume`](Self::resume). Running handlers go on, and so does intake within its
    /// budgets.
    pub fn pause(&self) {
        self.inner.workers.pool.set_paused(true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.inner.workers.pool.set_paused(false);
    }

    /// Returns whether handling is suspended, because what the handlers need is taken to be away; see
    /// [`outage_guard`](crate::Subscribe::outage_guard).
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.inner.workers.pool.is_suspended()
    }

    /// Changes the most handlers at once, also while work is queued. Running handlers are not interrupted.
    ///
    /// # Errors
    /// `InvalidConfig` for zero.
    pub fn set_concurrency(&self, concurrency: usize) -> Result<()> {
        if concurrency == 0 {
            let message = "concurrency: expected at least 1, got 0";
            return Err(Error::new(ErrorKind::InvalidConfig, message).with("setting", "concurrency"));
        }
        self.inner.start_workers(concurrency);
        Ok(())
    }

    /// Moves handling to another place, on the partitions that this member owns. Running handlers finish first; then a
    /// new epoch starts there, with the note and the memory of copies cleared (S3).
    ///
    /// # Errors
    /// `Closed`, or the broker's error. Not cancel safe: after the future is dropped, the seek goes on.
    pub async fn seek(&self, to: StartFrom) -> Result<()> {
        self.inner.not_inside()?;
        let (reply, answer) = oneshot::channel();
        self.inner.commands.send(SessionCommand::Seek(to, reply)).await.map_err(|_| Error::closed("subscription"))?;
        answer.await.map_err(|_| Error::closed("subscription"))?
    }

    /// Reports progress and lag of the whole group, as committed. Lag is a count of records. A broker that does not know
    /// the group yet, since this member has only just joined, is asked again for up to ten seconds. Cancel safe.
    ///
    /// # Errors
    /// `UnknownGroup` until the broker has admitted the first member of a new group; or the broker's error.
    pub async fn lag(&self) -> Result<Vec<GroupPartition>> {
        let joining = |answer: &Result<GroupDescription>| {
            answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnknownGroup)
        };
        let Running { backend, topic, group, .. } = &*self.inner;
        let patience = if self.inner.ended.borrow().is_some() { Duration::ZERO } else { JOINING };
        let described = poll_until(patience, joining, || backend.describe_group(topic, group)).await?;
        Ok(described.partitions)
    }

    /// Reports what this member holds: per partition the watermark, the oldest unfinished record with its key and age,
    /// and the number of running handlers.
    #[must_use]
    pub fn inspect(&self) -> Vec<PartitionView> {
        self.inner.workers.pool.view(Instant::now())
    }

    /// Stops intake, waits for running handlers, commits and leaves the group (S7). Envelopes that were queued but not
    /// started, and keys in back-off, stay unacknowledged and are delivered again, in order. At the deadline running
    /// handlers' futures are dropped.
    ///
    /// # Errors
    /// `DeadlineExceeded` naming the abandoned envelopes; `WouldDeadlock` inside a handler of this subscription; the
    /// error with which the subscription had ended before. Cancel safe: the drain goes on.
    pub async fn drain(&self, deadline: Duration) -> Result<()> {
        self.inner.drain(deadline).await
    }

    /// Waits until the subscription has ended. Cancel safe.
    ///
    /// # Errors
    /// The error with which the subscription ended, if it was not closed.
    pub async fn closed(&self) -> Result<()> {
        self.inner.closed().await
    }
}

impl Running {
    /// Sets the concurrency and starts the workers that are missing.
    pub(crate) fn start_workers(&self, concurrency: usize) {
        for worker in self.workers.pool.set_concurrency(concurrency) {
            self.handlers.spawn(self.workers.clone().work(worker));
        }
    }

    /// Closes with a deadline of zero, without waiting.
    pub(crate) fn stop(&self) {
        let (reply, _) = oneshot::channel();
        // A full queue means that a close is under way already, or that the session will see the last handle go.
        let _ = self.commands.try_send(SessionCommand::Close(Duration::ZERO, reply));
    }

    fn not_inside(&self) -> Result<()> {
        if Scope::current() == Some(self.workers.scope) {
            let message = "this waits for the handler that waits for it";
            return Err(Error::new(ErrorKind::WouldDeadlock, message).with("topic", &self.topic));
        }
        Ok(())
    }

    pub(crate) async fn drain(&self, within: Duration) -> Result<()> {
        self.not_inside()?;
        let (reply, answer) = oneshot::channel();
        if self.commands.send(SessionCommand::Close(within, reply)).await.is_ok()
            && let Ok(drained) = answer.await
        {
            self.wait_ended().await;
            return self.outcome(&drained);
        }
        self.closed().await
    }

    fn outcome(&self, drained: &DrainReport) -> Result<()> {
        if drained.abandoned.is_empty() && drained.stuck.is_empty() && drained.uncommitted.is_empty() {
            return Ok(());
        }
        let list = |entries: &[(u32, Position)]| {
            let texts: Vec<String> = entries.iter().map(|(p, at)| format!("{p}:{at}")).collect();
            texts.join(" ")
        };
        let mut error =
            Error::new(ErrorKind::DeadlineExceeded, "not everything was finished and committed at the deadline")
                .with("topic", &self.topic)
                .with("group", &self.group)
                .with("abandoned", list(&drained.abandoned));
        if !drained.stuck.is_empty() {
            error = error.with("blocking", list(&drained.stuck));
        }
        if !drained.uncommitted.is_empty() {
            error = error.with("uncommitted", format!("{:?}", drained.uncommitted));
        }
        Err(error)
    }

    async fn wait_ended(&self) -> Option<Error> {
        let mut ended = self.ended.clone();
        let value = ended.wait_for(Option::is_some).await;
        value.ok().and_then(|value| value.clone()).flatten()
    }

    pub(crate) async fn closed(&self) -> Result<()> {
        self.not_inside()?;
        self.wait_ended().await.map_or(Ok(()), Err)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.inner.topic)
            .field("group", &self.inner.group)
            .field("member", &self.inner.member)
            .finish_non_exhaustive()
    }
}

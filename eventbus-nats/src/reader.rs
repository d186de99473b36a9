//! Delivery of one partition: pull requests in, batches out.
//!
//! Invariants (S3, S6):
//! * within one read positions rise and no delivery is missing; at the first gap, error or silence the read ends with an
//!   interruption, and nothing comes after it;
//! * what was asked for and not yet taken by the member is bounded, in records and, by their average size, in bytes; a
//!   paused read asks for nothing more;
//! * what the log lost below the read is told, and how far an idle partition has come, through the same queue as records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use eventbus_core::Position;
use eventbus_core::backend::{ConnectionState, GroupEvent, Inbound};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::connection::Link;
use crate::consumer::{Consumer, Pulled, Pulls};
use crate::error::{Failure, NO_MESSAGE};
use crate::wire;

/// Bytes of one partition that may be on their way.
const BYTES: usize = 8 << 20;

/// Records asked for before their size is known.
const FIRST: usize = 64;

/// The most records in one item of the queue.
const CHUNK: usize = 512;

/// The ends of the log as they were last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ends {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What a read tells its member, with the read's number.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) partition: u32,
    pub(crate) read: u64,
    pub(crate) event: GroupEvent,
}

/// What member and reader share.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Records asked for and not yet taken.
    asked: AtomicUsize,
    paused: AtomicBool,
    wake: Notify,
}

impl Flow {
    pub(crate) fn taken(&self, records: usize) {
        self.asked.fetch_sub(records, Ordering::AcqRel);
        self.wake.notify_one();
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.wake.notify_one();
    }
}

pub(crate) struct Reader {
    pub(crate) link: Arc<Link>,
    pub(crate) stream: String,
    pub(crate) subject: String,
    pub(crate) partition: u32,
    /// This read's number.
    pub(crate) number: u64,
    pub(crate) flow: Arc<Flow>,
    pub(crate) queue: mpsc::UnboundedSender<Told>,
    pub(crate) ends: watch::Receiver<Ends>,
    /// Nothing of the partition is left below this.
    pub(crate) next: u64,
}

/// What is known of the pulls of one read.
struct Pulling {
    pulls: Pulls,
    /// Records of open requests.
    open: usize,
    /// Deliveries so far.
    delivered: u64,
    bytes: usize,
    /// Records came since the log's ends were last seen.
    fresh: bool,
    /// When the server was last heard of.
    heard: Instant,
}

impl Reader {
    /// Delivers until something breaks off, and says so.
    pub(crate) async fn run(mut self, consumer: Consumer, pulls: Pulls) {
        let mut pulling = Pulling { pulls, open: 0, delivered: 0, bytes: 0, fresh: false, heard: Instant::now() };
        let why = self.deliver(&mut pulling).await;
        tracing::debug!(target: "eventbus", partition = self.partition, why, "a read broke off");
        self.tell(GroupEvent::Interrupted(vec![self.partition]));
        drop(consumer);
    }

    fn tell(&self, event: GroupEvent) {
        let _ = self.queue.send(Told { partition: self.partition, read: self.number, event });
    }

    async fn deliver(&mut self, pulling: &mut Pulling) -> String {
        let mut connection = self.link.watch();
        let mut look: Option<BoxFuture<'static, Option<(Ends, u64)>>> = None;
        // Two missing heartbeats, and a little for the way.
        let silence = self.link.config.heartbeat * 2 + Duration::from_millis(100);
        loop {
            if let Err(failure) = self.ask(pulling).await {
                return format!("{failure:?}");
            }
            let looking = OptionFuture::from(look.as_mut());
            tokio::select! {
                biased;
                pulled = pulling.pulls.next() => {
                    if let Err(why) = self.take(pulling, pulled) {
                        return why;
                    }
                }
                Some(seen) = looking => {
                    look = None;
                    self.looked(seen);
                }
                Ok(()) = self.ends.changed() => {
                    let ends = *self.ends.borrow_and_update();
                    // With an open request and nothing delivered, the partition has nothing new: what retention took below
                    // the log's first position was others'. Whether that is so, a look at its last record tells.
                    let idle = !std::mem::take(&mut pulling.fresh) && pulling.open > 0;
                    if !idle {
                        self.truncated(ends);
                    } else if look.is_none() && self.next <= ends.last {
                        look = Some(last_of(Arc::clone(&self.link), self.stream.clone(), self.subject.clone(), ends).boxed());
                    }
                }
                changed = connection.changed() => {
                    if changed.is_err() || *connection.borrow() != ConnectionState::Connected {
                        return "the connection was lost".into();
                    }
                }
                () = self.flow.wake.notified() => {}
                () = tokio::time::sleep_until(pulling.heard + silence), if pulling.open > 0 => return "the server fell silent".into(),
            }
        }
    }

    /// Asks for more when half of what may be on its way was taken.
    async fn ask(&self, pulling: &mut Pulling) -> Result<(), Failure> {
        let config = &self.link.config;
        let most = match pulling.delivered {
            0 => FIRST.min(config.fetch_batch),
            delivered => (BYTES / (pulling.bytes / delivered as usize).max(1)).clamp(1, config.fetch_batch),
        };
        let asked = self.flow.asked.load(Ordering::Acquire);
        if asked > most / 2 || self.flow.paused.load(Ordering::Acquire) {
            return Ok(());
        }
        let batch = most - asked;
        self.flow.asked.fetch_add(batch, Ordering::AcqRel);
        if pulling.open == 0 {
            pulling.heard = Instant::now();
        }
        pulling.open += batch;
        pulling.pulls.request(batch, config.fetch_wait, config.heartbeat).await
    }

    /// Takes what came, and what is there beside it.
    fn take(&mut self, pulling: &mut Pulling, first: Pulled) -> Result<(), String> {
        let mut records: Vec<Inbound> = Vec::new();
        let mut pulled = Some(first);
        let mut broken = None;
        pulling.heard = Instant::now();
        while let Some(event) = pulled {
            match event {
                Pulled::Record(place, headers, payload, _) => {
                    if place.delivery != pulling.delivered + 1 || place.position.get() < self.next {
                        broken = Some(format!("a gap: delivery {} after {}", place.delivery, pulling.delivered));
                        break;
                    }
                    pulling.delivered += 1;
                    pulling.open = pulling.open.saturating_sub(1);
                    self.next = place.position.get() + 1;
                    let record = wire::inbound(self.partition, &place, headers, payload);
                    pulling.bytes += record.bytes;
                    records.push(record);
                }
                Pulled::Ended(left) => {
                    let left = left.min(pulling.open);
                    pulling.open -= left;
                    self.flow.asked.fetch_sub(left, Ordering::AcqRel);
                }
                Pulled::Heartbeat => {}
                Pulled::Broken(why) => {
                    broken = Some(why);
                    break;
                }
            }
            pulled = if records.len() < CHUNK { pulling.pulls.ready() } else { None };
        }
        if !records.is_empty() {
            pulling.fresh = true;
            self.tell(GroupEvent::Records(records));
        }
        broken.map_or(Ok(()), Err)
    }

    /// What the log lost before it was delivered. All that the server sent before it told the log's ends has been taken,
    /// so what is missing below the first position will not come any more.
    fn truncated(&mut self, ends: Ends) {
        if ends.first > self.next {
            self.next = ends.first;
            self.tell(GroupEvent::Truncated { partition: self.partition, first: Position::new(ends.first) });
        }
    }

    /// The partition's last record was delivered, or there is none: nothing is left below the end seen before it.
    fn looked(&mut self, seen: Option<(Ends, u64)>) {
        match seen {
            Some((ends, last)) if last < self.next => {
                self.next = self.next.max(ends.last + 1);
                self.tell(GroupEvent::CaughtUp { partition: self.partition, next: Position::new(ends.last + 1) });
            }
            Some((ends, _)) => self.truncated(ends),
            None => {}
        }
    }
}

/// The position of a partition's last record, 0 where there is none, and the ends of the log as they were before.
async fn last_of(link: Arc<Link>, stream: String, subject: String, ends: Ends) -> Option<(Ends, u64)> {
    let request = json!({ "last_by_subj": subject });
    match link.api::<Value>(&format!("STREAM.MSG.GET.{stream}"), &request).await {
        Ok(found) => Some((ends, found.get("message")?.get("seq")?.as_u64()?)),
        Err(failure) if failure.is(NO_MESSAGE) => Some((ends, 0)),
        Err(_) => None,
    }
}

//! Publishing: submissions in flight, their answers, and what is known without one (P2, P3).
//!
//! Invariants:
//! * every submission is told its fate once: by an answer, by the time-out, by the loss of the connection, by a denied
//!   permission, or by the end of the bus;
//! * an answer counts only for the submission that it was asked for: a place in the table that is used again has another
//!   serial number, which is part of the reply subject;
//! * no lock is held while a ticket is told.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::{Message, Subject};
use eventbus_core::backend::{Fate, Outbound};
use eventbus_core::wire::Mode;
use eventbus_core::{Error, ErrorKind, Result, Ticket, Topic};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::answers::{Verdict, judge};
use crate::config::NatsConfig;
use crate::connection::{Link, OnSignal};
use crate::error::{Failure, NO_STREAM, NOT_ENABLED};
use crate::names::Names;
use crate::wire;

/// How often unanswered submissions are looked at.
const SWEEP: Duration = Duration::from_millis(100);

/// How long a refusal that came as an event, or a stream that seems to be gone, is waited with before it is believed.
const CERTAIN: Duration = Duration::from_millis(300);

pub(crate) struct Producer {
    prefix: String,
    mode: Mode,
    timeout: Duration,
    link: OnceLock<(Arc<Link>, String)>,
    table: Mutex<Table>,
    topics: Mutex<HashMap<Topic, Arc<Target>>>,
}

/// Where a topic's records go.
struct Target {
    names: Names,
    subjects: Mutex<HashMap<u32, Subject>>,
}

#[derive(Default)]
struct Table {
    flights: slab::Slab<Flight>,
    serials: u64,
    /// In order of sending; entries of what was answered are passed over.
    by_age: VecDeque<(Instant, usize, u64)>,
    /// What met nobody and waits until its stream was asked for.
    unclaimed: HashMap<String, Vec<Ticket>>,
    closed: bool,
}

struct Flight {
    serial: u64,
    ticket: Ticket,
    subject: Subject,
    target: Arc<Target>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.table().flights.len()).finish_non_exhaustive()
    }
}

impl Producer {
    pub(crate) fn new(config: &NatsConfig) -> Self {
        Self {
            prefix: config.prefix.clone(),
            mode: config.mode,
            timeout: config.publish_timeout,
            link: OnceLock::new(),
            table: Mutex::default(),
            topics: Mutex::default(),
        }
    }

    /// Begins: an inbox for acknowledgements, checked with one request, and the tasks that listen and watch.
    pub(crate) async fn start(self: &Arc<Self>, link: &Arc<Link>) -> Result<()> {
        let inbox = link.client.new_inbox();
        let failed = |error: &dyn fmt::Display| Error::new(ErrorKind::Unavailable, format!("no inbox: {error}"));
        let mut answers = link.client.subscribe(format!("{inbox}.*")).await.map_err(|error| failed(&error))?;
        let (subject, reply) = ("$JS.API.INFO", format!("{inbox}.check"));
        let sent = link.client.publish_with_reply(subject, reply, Default::default()).await;
        sent.map_err(|error| failed(&error))?;
        match tokio::time::timeout(link.config.request_timeout, answers.next()).await {
            Ok(Some(message)) if message.status.is_some_and(|status| status.as_u16() == 503) => {
                return Err(Error::new(ErrorKind::Unsupported, "JetStream is not enabled on this server or account"));
            }
            Ok(Some(message)) => drop(crate::connection::read::<serde_json::Value>(&message.payload)?),
            _ => {
                let message = "no answer on the bus's inbox: permissions to publish to $JS.API.> and to subscribe to \
                               the inbox are needed";
                return Err(Error::new(ErrorKind::PermissionDenied, message));
            }
        }
        if self.link.set((Arc::clone(link), inbox)).is_err() {
            return Err(Error::new(ErrorKind::Backend, "the backend was opened twice"));
        }
        let producer = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(message) = answers.next().await {
                let Some(producer) = producer.upgrade() else { return };
                producer.answered(&message);
            }
        });
        let producer = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(producer) = producer.upgrade() else { return };
                producer.sweep();
            }
        });
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn submit(self: &Arc<Self>, record: Outbound, ticket: Ticket) {
        let fate = match self.send(record, ticket) {
            None => return,
            Some((ticket, fate)) => (ticket, fate),
        };
        fate.0.tell(fate.1);
    }

    /// Sends a record, or says at once what became of it.
    fn send(&self, record: Outbound, ticket: Ticket) -> Option<(Ticket, Fate)> {
        let not_stored = |why: &'static str| Fate::NotStored(Error::new(ErrorKind::Unavailable, why));
        let Some((link, inbox)) = self.link.get().filter(|(link, _)| link.is_up()) else {
            return Some((ticket, not_stored("there is no connection")));
        };
        let Outbound { topic, partition, stamp, envelope, .. } = record;
        let (headers, payload, size) = match wire::encode(&envelope, stamp, self.mode) {
            Ok(message) => message,
            Err(error) => return Some((ticket, Fate::Refused(error.with("topic", topic)))),
        };
        let most = link.client.max_payload();
        if size > most {
            let message = format!("expected at most {most} bytes with headers, got {size}");
            return Some((ticket, Fate::Refused(Error::new(ErrorKind::TooLarge, message).with("topic", topic))));
        }
        let target = self.target(&topic);
        let subject = target.subject(partition);
        let (index, serial) = {
            let mut table = self.table();
            if table.closed {
                return Some((ticket, Fate::NotStored(Error::new(ErrorKind::Closed, "the backend is closed"))));
            }
            table.serials += 1;
            let serial = table.serials;
            let index = table.flights.insert(Flight { serial, ticket, subject: subject.clone(), target });
            table.by_age.push_back((Instant::now(), index, serial));
            (index, serial)
        };
        let reply = format!("{inbox}.{index:x}-{serial:x}");
        let sending = link.client.publish_with_reply_and_headers(subject, reply, headers, payload);
        // The client's queue has room for the whole window, so this is ready at once, or never.
        match tokio::task::unconstrained(sending).now_or_never() {
            Some(Ok(())) => None,
            _ => {
                let flight = self.table().take(index, serial)?;
                Some((flight.ticket, not_stored("the client takes nothing")))
            }
        }
    }

    fn target(&self, topic: &Topic) -> Arc<Target> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = topics.get(topic) {
            return Arc::clone(target);
        }
        let target = Arc::new(Target { names: Names::new(&self.prefix, topic), subjects: Mutex::default() });
        topics.insert(topic.clone(), Arc::clone(&target));
        target
    }

    fn answered(self: &Arc<Self>, message: &Message) {
        let Some((index, serial)) = place(&message.subject) else { return };
        let Some(flight) = self.table().take(index, serial) else { return };
        match judge(message.status.map(|status| status.as_u16()), &message.payload) {
            Verdict::Known(fate) => flight.ticket.tell(fate),
            Verdict::Ask => self.unclaimed(flight),
        }
    }

    /// A record that met nobody: whether its stream is there decides what that means. One question for all of a stream.
    fn unclaimed(self: &Arc<Self>, flight: Flight) {
        let stream = flight.target.names.stream.clone();
        let first = {
            let mut table = self.table();
            let waiting = table.unclaimed.entry(stream.clone()).or_default();
            waiting.push(flight.ticket);
            waiting.len() == 1
        };
        if !first {
            return;
        }
        let producer = Arc::clone(self);
        tokio::spawn(async move {
            let fate = producer.why_unclaimed(&stream).await;
            let waiting = producer.table().unclaimed.remove(&stream).unwrap_or_default();
            waiting.into_iter().for_each(|ticket| ticket.tell(fate.clone()));
        });
    }

    /// Deleted and not enabled are believed when they were told twice over one connection: a server that recovers says the
    /// same for a moment.
    async fn why_unclaimed(&self, stream: &str) -> Fate {
        let later = || Fate::NotStored(Error::new(ErrorKind::Unavailable, "nobody took the record"));
        let Some((link, _)) = self.link.get() else { return later() };
        let before = link.breaks();
        for again in [false, true] {
            if again {
                tokio::time::sleep(CERTAIN).await;
            }
            let asked = link.api::<serde_json::Value>(&format!("STREAM.INFO.{stream}"), &()).await;
            let definite = |code: u64| asked.as_ref().err().is_some_and(|failure: &Failure| failure.is(code));
            if !(definite(NO_STREAM) || NOT_ENABLED.iter().any(|code| definite(*code))) || link.breaks() != before {
                return later();
            }
            if let (true, Err(failure)) = (again, asked) {
                return Fate::Refused(failure.into());
            }
        }
        later()
    }

    fn sweep(&self) {
        let mut late = Vec::new();
        {
            let mut table = self.table();
            while let Some((sent, index, serial)) = table.by_age.front().copied() {
                let flying = table.flights.get(index).is_some_and(|flight| flight.serial == serial);
                if flying && sent.elapsed() < self.timeout {
                    break;
                }
                table.by_age.pop_front();
                late.extend(table.take(index, serial));
            }
        }
        let error = Error::new(ErrorKind::Unknown, "no acknowledgement came in time");
        late.into_iter().for_each(|flight| flight.ticket.tell(Fate::Unknown(error.clone())));
    }

    /// Ends everything with an outcome that nobody knows.
    fn forget(&self, why: &'static str) {
        let (flights, unclaimed) = {
            let mut table = self.table();
            table.by_age.clear();
            (std::mem::take(&mut table.flights), std::mem::take(&mut table.unclaimed))
        };
        let error = Error::new(ErrorKind::Unknown, why);
        flights.into_iter().for_each(|(_, flight)| flight.ticket.tell(Fate::Unknown(error.clone())));
        unclaimed.into_values().flatten().for_each(|ticket| ticket.tell(Fate::Unknown(error.clone())));
    }

    pub(crate) fn close(&self) {
        self.table().closed = true;
        self.forget("the bus was closed before the server answered");
    }
}

impl Target {
    fn subject(&self, partition: u32) -> Subject {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.entry(partition).or_insert_with(|| self.names.partition(partition).into()).clone()
    }
}

impl Table {
    /// The submission, if its place was not given to another.
    fn take(&mut self, index: usize, serial: u64) -> Option<Flight> {
        self.flights.get(index).filter(|flight| flight.serial == serial)?;
        Some(self.flights.remove(index))
    }
}

/// The submission that an answer's subject names.
fn place(subject: &str) -> Option<(usize, u64)> {
    let (index, serial) = subject.rsplit_once('.')?.1.split_once('-')?;
    Some((usize::from_str_radix(index, 16).ok()?, u64::from_str_radix(serial, 16).ok()?))
}

/// What the connection's events mean for the submissions.
#[derive(Debug)]
pub(crate) struct Signalled(pub(crate) std::sync::Weak<Producer>);

impl OnSignal for Signalled {
    fn lost(&self) {
        if let Some(producer) = self.0.upgrade() {
            producer.forget("the connection was lost before the server answered");
        }
    }

    /// What was sent on this subject before, and is still unanswered when the server has answered something sent after the
    /// event, was refused: a missing permission brings no answer.
    fn denied(&self, subject: &str) {
        let Some(producer) = self.0.upgrade() else { return };
        let flying: Vec<(usize, u64, String)> = {
            let table = producer.table();
            let of_subject = table.flights.iter().filter(|(_, flight)| &*flight.subject == subject);
            of_subject.map(|(index, flight)| (index, flight.serial, flight.target.names.stream.clone())).collect()
        };
        let Some((_, _, stream)) = flying.first().cloned() else { return };
        let subject = subject.to_owned();
        tokio::spawn(async move {
            let Some((link, _)) = producer.link.get() else { return };
            let _ = link.api::<serde_json::Value>(&format!("STREAM.INFO.{stream}"), &()).await;
            tokio::time::sleep(CERTAIN).await;
            let message = "the server's permissions do not allow to publish this";
            let error = Error::new(ErrorKind::PermissionDenied, message).with("subject", subject);
            for (index, serial, _) in flying {
                let flight = producer.table().take(index, serial);
                if let Some(flight) = flight {
                    flight.ticket.tell(Fate::Refused(error.clone()));
                }
            }
        });
    }
}

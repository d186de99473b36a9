//! Publishing: submissions in flight, their answers, and fates that come without one (P2, P3).
//!
//! Invariants:
//! * every submission is told its fate once: by an answer, by the time-out, by the loss of the connection, by a denied
//!   permission, or by the end of the bus;
//! * an answer counts only for its own submission, whose [`FlightId`] is part of the reply subject; an acknowledgement
//!   counts for its stamp, however late it comes;
//! * no lock is held while a ticket is told.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::in_flight::{FlightId, InFlight};
use async_nats::{Message, Subject, Subscriber};
use eventbus_core::backend::Ticket;
use eventbus_core::backend::{ConnectionState, Fate, Outbound};
use eventbus_core::toolkit::OnConnection;
use eventbus_core::toolkit::Opened;
use eventbus_core::wire::Mode;
use eventbus_core::{Error, ErrorKind, Result, Topic};
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::answers::{Verdict, judge};
use crate::config::NatsConfig;
use crate::connection::Link;
use crate::error::{NO_STREAM, NOT_ENABLED};
use crate::names::Names;
use crate::wire;

/// Wait before a refusal that came as an event, or a stream that seems to be gone, is believed.
const CERTAIN: Duration = Duration::from_millis(300);

/// The shortest and the longest wait before a client that ended is replaced.
const REPLACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

pub(crate) struct Producer {
    prefix: String,
    mode: Mode,
    timeout: Duration,
    link: Opened<Link>,
    flights: Arc<InFlight<Arc<Target>>>,
    targets: Mutex<HashMap<(Topic, u32), Arc<Target>>>,
}

/// The destination of a partition's records.
struct Target {
    subject: Subject,
    stream: String,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("flights", &self.flights).finish_non_exhaustive()
    }
}

/// Returns why no answer came on the bus's inbox: the server denied one of the two subjects, or it is silent.
fn silent(link: &Link, subject: &str, begun: Instant) -> Error {
    let inbox = format!("{}.*", link.inbox);
    // Some servers' words come in lower case.
    let denied = |subject: &str| {
        let lower = subject.to_ascii_lowercase();
        link.connection().denied_since(subject, begun) || link.connection().denied_since(&lower, begun)
    };
    if denied(subject) || denied(&inbox) {
        let message = "the server denies what the bus needs: to publish to $JS.API.> and to subscribe to its inbox";
        return Error::new(ErrorKind::PermissionDenied, message).with("subject", subject).with("inbox", inbox);
    }
    let patience = link.config.request_timeout;
    Error::new(ErrorKind::Unavailable, format!("the server did not answer within {patience:?}"))
        .with("subject", subject)
        .with("servers", link.config.servers.join(","))
}

impl Producer {
    pub(crate) fn new(config: &NatsConfig) -> Self {
        Self {
            prefix: config.prefix.clone(),
            mode: config.mode,
            timeout: config.publish_timeout,
            link: Opened::default(),
            flights: Arc::default(),
            targets: Mutex::default(),
        }
    }

    /// Starts the producer: an inbox for acknowledgements, checked with one request, and the tasks that listen and
    /// watch.
    pub(crate) async fn start(self: &Arc<Self>, link: &Arc<Link>) -> Result<()> {
        let mut answers = link.answers().await?;
        let (subject, reply, begun) = ("$JS.API.INFO", format!("{}.check", link.inbox), Instant::now());
        let sent = link.client().publish_with_reply(subject, reply, Default::default()).await;
        sent.map_err(|error| Error::new(ErrorKind::Unavailable, format!("no inbox: {error}")))?;
        match tokio::time::timeout(link.config.request_timeout, answers.next()).await {
            Ok(Some(message)) if message.status.is_some_and(|status| status.as_u16() == 503) => {
                return Err(Error::new(ErrorKind::Unsupported, "JetStream is not enabled on this server or account"));
            }
            Ok(Some(message)) => drop(crate::connection::read::<serde_json::Value>(&message.payload)?),
            _ => return Err(silent(link, subject, begun)),
        }
        self.link.set(Arc::clone(link))?;
        // An acknowledgement releases the next record of its key, which goes through the client again.
        link.beside(Self::listen(Arc::downgrade(self), Arc::downgrade(link), answers));
        tokio::spawn(InFlight::watch(Arc::downgrade(&self.flights), self.timeout));
        Ok(())
    }

    /// Takes the answers, and has the client replaced whenever its task ends by itself.
    async fn listen(producer: Weak<Self>, link: Weak<Link>, mut answers: Subscriber) {
        let (mut begun, mut wait) = (Instant::now(), REPLACE.0);
        loop {
            while let Some(message) = answers.next().await {
                let Some(producer) = producer.upgrade() else { return };
                producer.answered(&message);
            }
            match link.upgrade() {
                Some(link) => link.ended(&link.client()),
                None => return,
            }
            if begun.elapsed() > REPLACE.1 * 10 {
                wait = REPLACE.0;
            }
            answers = loop {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(REPLACE.1);
                let Some(link) = link.upgrade().filter(|link| link.state() != ConnectionState::Closed) else { return };
                if let Ok(answers) = link.replace().await {
                    break answers;
                }
            };
            begun = Instant::now();
        }
    }

    pub(crate) fn submit(self: &Arc<Self>, record: Outbound, ticket: Ticket) {
        if let Some((ticket, fate)) = self.send(record, ticket) {
            ticket.tell(fate);
        }
    }

    /// Sends a record. Returns its ticket and fate if that is decided at once.
    fn send(&self, record: Outbound, ticket: Ticket) -> Option<(Ticket, Fate)> {
        let not_stored = |why: &'static str| Fate::NotStored(Error::new(ErrorKind::Unavailable, why));
        let Some(link) = self.link.get().ok().filter(|link| link.is_up()) else {
            return Some((ticket, not_stored("there is no connection")));
        };
        let Outbound { topic, partition, stamp, envelope, .. } = record;
        let (headers, payload, size) = match wire::encode(&envelope, stamp, self.mode) {
            Ok(message) => message,
            Err(error) => return Some((ticket, Fate::Refused(error.with("topic", topic)))),
        };
        let client = link.client();
        let most = client.max_payload();
        if size > most {
            let message = format!("expected at most {most} bytes with headers, got {size}");
            return Some((ticket, Fate::Refused(Error::new(ErrorKind::TooLarge, message).with("topic", topic))));
        }
        let target = self.target(topic, partition);
        let subject = target.subject.clone();
        let id = match self.flights.begin(ticket, stamp, target) {
            Ok(id) => id,
            Err(closed) => return Some(closed),
        };
        let reply = format!("{}.{id}", link.inbox);
        let sending = client.publish_with_reply_and_headers(subject, reply, headers, payload);
        // The client's queue has room for the whole window, so this is ready at once, or never.
        match tokio::task::unconstrained(sending).now_or_never() {
            Some(Ok(())) => None,
            _ => {
                let (ticket, _) = self.flights.end(id)?;
                Some((ticket, not_stored("the client takes nothing")))
            }
        }
    }

    fn target(&self, topic: Topic, partition: u32) -> Arc<Target> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let target = targets.entry((topic, partition)).or_insert_with_key(|(topic, partition)| {
            let names = Names::new(&self.prefix, topic);
            Arc::new(Target { subject: names.partition(*partition).into(), stream: names.stream })
        });
        Arc::clone(target)
    }

    fn answered(self: &Arc<Self>, message: &Message) {
        let id = message.subject.rsplit_once('.').and_then(|(_, id)| FlightId::parse(id));
        let Some(id) = id else { return };
        let verdict = judge(message.status.map(|status| status.as_u16()), &message.payload);
        let Some((ticket, target)) = self.flights.end(id) else {
            if let Verdict::Known(stored @ Fate::Stored { .. }) = verdict
                && let Some(ticket) = self.flights.came_late(id, &stored)
            {
                ticket.tell(stored);
            }
            return;
        };
        match verdict {
            Verdict::Known(fate) => ticket.tell(fate),
            // No stream took the record: whether its stream is there decides about it.
            Verdict::Ask => {
                let (producer, asked) = (Arc::clone(self), Arc::clone(&target));
                let why = || async move { producer.why_unclaimed(&asked.stream).await };
                self.flights.ask(&target.stream, ticket, why);
            }
        }
    }

    /// Decides about a record that no stream took. A stream is believed gone, and JetStream not enabled, when that was
    /// told twice over one connection: a server that recovers says the same for a moment.
    async fn why_unclaimed(&self, stream: &str) -> Fate {
        let later = || Fate::NotStored(Error::new(ErrorKind::Unavailable, "nobody took the record"));
        let Ok(link) = self.link.get() else { return later() };
        let gone = || async {
            let failure = link.stream_info(stream).await.err()?;
            let definite = failure.is(NO_STREAM) || NOT_ENABLED.iter().any(|code| failure.is(*code));
            definite.then(|| Fate::Refused(failure.into()))
        };
        link.connection().told_twice(CERTAIN, gone).await.unwrap_or_else(later)
    }

    pub(crate) fn close(&self) {
        self.flights.close("the bus was closed before the server answered");
    }
}

/// Effects of the connection's events on the submissions.
impl OnConnection for Producer {
    fn lost(self: Arc<Self>) {
        self.flights.end_all("the connection was lost before the server answered");
    }

    /// Refuses the submissions that were sent on this subject before, and are still unanswered when the server has
    /// answered something sent after the event: a missing permission brings no answer. An answer that was lost before
    /// the permission was taken away brings none either, so the log decides.
    fn denied(self: Arc<Self>, subject: &str) {
        let of_subject = |target: &Arc<Target>| (&*target.subject == subject).then(|| target.stream.clone());
        let flying = self.flights.find(of_subject);
        let Some((_, stream)) = flying.first().cloned() else { return };
        let subject = subject.to_owned();
        tokio::spawn(async move {
            let Ok(link) = self.link.get() else { return };
            let _ = link.stream_info(&stream).await;
            tokio::time::sleep(CERTAIN).await;
            let message = "the server's permissions do not allow to publish this";
            let error = Error::new(ErrorKind::PermissionDenied, message).with("subject", subject);
            for (id, _) in flying {
                if let Some((ticket, _)) = self.flights.end(id) {
                    ticket.tell(Fate::Doubtful(error.clone()));
                }
            }
        });
    }
}

//! JetStream consumers as readers use them: made under a name of their own, pulled from, removed.
//!
//! Invariants: a name is never used twice (a random part is in it), and every name that was asked for is removed, also
//! where its creation was never answered: a server that was stopped may carry it out later.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Message, Subscriber};
use async_trait::async_trait;
use eventbus_core::Result;
use eventbus_core::lease::{Pulled, Source, scan};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::Link;
use crate::error::Failure;
use crate::wire::{MESSAGE_ID, Place};

type Outcome<T> = std::result::Result<T, Failure>;

/// Where a reader begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Sequence(u64),
    /// Milliseconds since the Unix epoch.
    Time(u64),
    All,
}

/// A consumer of the server's, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Consumer {
    link: Arc<Link>,
    stream: String,
    name: String,
}

#[derive(Deserialize)]
struct Created {
    num_pending: u64,
}

impl Consumer {
    /// Makes one, and tells how many records it has before it.
    pub(crate) async fn create(
        link: &Arc<Link>,
        stream: &str,
        filter: &str,
        start: Start,
        headers_only: bool,
    ) -> Outcome<(Self, u64)> {
        let name = format!("eb-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
        let consumer = Self { link: Arc::clone(link), stream: stream.to_owned(), name: name.clone() };
        let inactive = link.config.inactive_threshold;
        let mut config = json!({
            "name": name, "filter_subject": filter, "ack_policy": "none", "mem_storage": true, "num_replicas": 1,
            "max_waiting": link.config.max_waiting, "headers_only": headers_only, "replay_policy": "instant",
            "inactive_threshold": u64::try_from(inactive.as_nanos()).unwrap_or(u64::MAX),
        });
        match start {
            Start::All => config["deliver_policy"] = json!("all"),
            Start::Sequence(sequence) => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(sequence.max(1));
            }
            Start::Time(millis) => {
                config["deliver_policy"] = json!("by_start_time");
                config["opt_start_time"] = json!(rfc3339(millis));
            }
        }
        let request = json!({ "stream_name": stream, "config": config, "action": "create" });
        // Dropped with an error, the consumer is removed as well.
        let created: Created = link.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &request).await?;
        Ok((consumer, created.num_pending))
    }

    /// Begins to pull.
    pub(crate) async fn pulls(self) -> Outcome<Pulls> {
        let inbox = self.link.client.new_inbox();
        let messages = self.link.client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| Failure::Unanswered(error.to_string()))?;
        Ok(Pulls { consumer: self, messages, inbox })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (link, subject) = (Arc::clone(&self.link), format!("CONSUMER.DELETE.{}.{}", self.stream, self.name));
        let removal = link.removal();
        runtime.spawn(async move {
            let _under_way = removal;
            // A creation may be carried out after its deletion was refused: asked again where no answer came. What is left
            // after that, the server removes as inactive.
            for wait in [0, 1, 5, 30] {
                tokio::time::sleep(Duration::from_secs(wait)).await;
                if !matches!(
                    link.api::<Value>(&subject, &()).await,
                    Err(Failure::Unanswered(_) | Failure::NoResponders)
                ) {
                    return;
                }
            }
        });
    }
}

/// Pull requests and what they bring.
pub(crate) struct Pulls {
    consumer: Consumer,
    messages: Subscriber,
    inbox: String,
}

/// A message, and where it was.
pub(crate) struct Delivered {
    pub(crate) place: Place,
    pub(crate) message: Message,
}

impl Delivered {
    /// The message id, by which the server drops copies.
    pub(crate) fn id(&self) -> Option<&str> {
        Some(self.message.headers.as_ref()?.get(MESSAGE_ID)?.as_str())
    }
}

#[async_trait]
impl Source<Delivered> for Pulls {
    async fn request(&mut self, records: usize) -> Result<()> {
        let Consumer { link, stream, name } = &self.consumer;
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (expires, heartbeat) = (nanos(link.config.fetch_wait), nanos(link.config.heartbeat));
        let request = json!({ "batch": records, "expires": expires, "idle_heartbeat": heartbeat }).to_string();
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        let sent = link.client.publish_with_reply(next, self.inbox.clone(), request.into()).await;
        sent.map_err(|error| Failure::Unanswered(error.to_string()).into())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Pulled<Delivered>> {
        self.messages.poll_next_unpin(context).map(|message| match message {
            Some(message) => pulled(message),
            None => Pulled::Broken("the connection is closed".into()),
        })
    }
}

fn pulled(message: Message) -> Pulled<Delivered> {
    let Some(status) = message.status.filter(|status| !status.is_success()) else {
        let place = message.reply.as_deref().and_then(Place::parse);
        return match place {
            Some(place) => {
                let Place { delivery, pending: left, .. } = place;
                Pulled::Record { delivery, left, record: Delivered { place, message } }
            }
            None => Pulled::Broken("a message that is no delivery".into()),
        };
    };
    let left = |headers: &HeaderMap| headers.get("Nats-Pending-Messages")?.as_str().parse::<usize>().ok();
    match status.as_u16() {
        100 => Pulled::Alive,
        404 | 408 => Pulled::Ended(message.headers.as_ref().and_then(left).unwrap_or_default()),
        // The consumer is gone, the server is leaving, or nobody is there.
        code => Pulled::Broken(format!("{code} {}", message.description.unwrap_or_default())),
    }
}

/// Reads what a filter holds now, up to the last record of the moment, and gives each to `take` until it says stop.
pub(crate) async fn read_all(
    link: &Arc<Link>,
    stream: &str,
    filter: &str,
    start: Start,
    headers_only: bool,
    take: impl FnMut(Delivered) -> bool,
) -> Result<()> {
    let (consumer, records) = Consumer::create(link, stream, filter, start, headers_only).await?;
    if records == 0 {
        return Ok(());
    }
    scan(&mut consumer.pulls().await?, records, link.config.heartbeat * 3, take).await
}

fn rfc3339(millis: u64) -> String {
    let nanos = i128::from(millis) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

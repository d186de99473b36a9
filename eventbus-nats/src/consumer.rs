//! JetStream consumers as readers use them: made under unique names, pulled from, removed.
//!
//! Invariants: a name is never used twice (a random part is in it), and every requested name is removed, also where its
//! creation was never answered: a server that was stopped may carry it out later.
//!
//! Reading alone is not enough where a record's headers end the client's connection: see `reader`.

use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::header::HeaderMap;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy};
use async_nats::{Client, Message, Subject, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use eventbus_core::toolkit::lease::{Source, SourceEvent};
use eventbus_core::{Position, Result};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::connection::Link;
use crate::error::{Failure, Outcome};
use crate::headers::Headers;
use crate::wire::{MESSAGE_ID, StreamPlace};

/// The end of a request whose next message does not fit into its bytes, as servers word it.
const TOO_LARGE: &str = "Message Size Exceeds MaxBytes";

/// The end of a request with a limit of bytes that was served: all of its records came.
const SERVED: &str = "Batch Completed";

/// The last millisecond of the year 9999, the end of the server's notation of times.
const LATEST: u64 = 253_402_300_799_999;

/// The policy to deliver from a position on.
pub(crate) fn from(position: Position) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence { start_sequence: position.get().max(1) }
}

/// The policy to deliver from a time on, in milliseconds since the Unix epoch.
pub(crate) fn since(unix_millis: u64) -> DeliverPolicy {
    let nanos = i128::from(unix_millis.min(LATEST)) * 1_000_000;
    let start_time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    DeliverPolicy::ByStartTime { start_time }
}

/// A consumer on the server, removed when this handle is dropped.
#[derive(Debug)]
pub(crate) struct Consumer {
    link: Arc<Link>,
    stream: String,
    name: String,
}

/// What the server says of a consumer that it made.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Created {
    /// The records before it.
    pub(crate) num_pending: u64,
    #[serde(default)]
    pub(crate) delivered: DeliveredUpTo,
}

/// The sequence right below that of the consumer's first record.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct DeliveredUpTo {
    #[serde(default)]
    pub(crate) stream_seq: u64,
}

impl Consumer {
    /// Creates a consumer. Also returns what the server says of it.
    pub(crate) async fn create(
        link: &Arc<Link>,
        stream: &str,
        filter: &str,
        start: DeliverPolicy,
        headers_only: bool,
    ) -> Outcome<(Self, Created)> {
        let name = format!("eb-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
        let consumer = Self { link: Arc::clone(link), stream: stream.to_owned(), name: name.clone() };
        let config = Config {
            name: Some(name.clone()),
            deliver_policy: start,
            ack_policy: AckPolicy::None,
            filter_subject: filter.to_owned(),
            max_waiting: i64::try_from(link.config.max_waiting).unwrap_or(i64::MAX),
            headers_only,
            inactive_threshold: link.config.inactive_threshold,
            num_replicas: 1,
            memory_storage: true,
            ..Config::default()
        };
        let request = json!({ "stream_name": stream, "config": config, "action": "create" });
        // An error drops `consumer`, and that removes it at the server as well.
        let created: Created = link.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &request).await?;
        Ok((consumer, created))
    }

    /// Fails where the consumer is gone, for example with a stream that was deleted and made again.
    pub(crate) async fn check(&self) -> Outcome<()> {
        self.link.api::<Value>(&format!("CONSUMER.INFO.{}.{}", self.stream, self.name), &()).await.map(drop)
    }

    /// Begins to pull.
    pub(crate) async fn pulls(self) -> Outcome<Pulls> {
        let client = self.link.client();
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| Failure::Unanswered(error.to_string()))?;
        Ok(Pulls { consumer: self, client, messages, inbox })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let (link, subject) = (Arc::clone(&self.link), format!("CONSUMER.DELETE.{}.{}", self.stream, self.name));
        // A creation may be carried out after its deletion was refused, so the deletion is asked for again where no
        // answer came. A consumer that is left after that, the server removes as inactive.
        self.link.removals.begin(move || {
            let (link, subject) = (Arc::clone(&link), subject.clone());
            async move {
                let asked = link.api::<Value>(&subject, &()).await;
                !matches!(asked, Err(Failure::Unanswered(_) | Failure::NoResponders))
            }
        });
    }
}

/// Pull requests to a consumer, and the messages that they bring.
pub(crate) struct Pulls {
    consumer: Consumer,
    /// The client of the subscription: another one's server would send the records nowhere.
    client: Arc<Client>,
    messages: Subscriber,
    inbox: String,
}

/// A record of a stream, and its place there.
pub(crate) struct Delivered {
    pub(crate) place: StreamPlace,
    pub(crate) subject: Subject,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

impl Delivered {
    fn of(place: StreamPlace, message: Message) -> Self {
        let headers = Headers::Read(message.headers.unwrap_or_default());
        Self { place, subject: message.subject, headers, payload: message.payload }
    }

    /// The bytes of the payload, and of the headers where they come as they are stored.
    pub(crate) fn bytes(&self) -> usize {
        let headers = if let Headers::Stored(block) = &self.headers { block.len() } else { 0 };
        self.payload.len() + headers
    }

    /// The message id, by which the server drops copies.
    pub(crate) fn id(&self) -> Option<String> {
        self.headers.text(MESSAGE_ID)
    }
}

#[async_trait]
impl Source<Delivered> for Pulls {
    async fn request(&mut self, records: usize, bytes: Option<usize>) -> Result<()> {
        let Consumer { link, stream, name } = &self.consumer;
        let (expires, idle_heartbeat) = (Some(link.config.fetch_wait), link.config.heartbeat);
        let max_bytes = bytes.unwrap_or_default();
        let request = BatchConfig { batch: records, max_bytes, expires, idle_heartbeat, ..BatchConfig::default() };
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        let sent = self.client.publish_with_reply(next, self.inbox.clone(), json!(request).to_string().into()).await;
        sent.map_err(|error| Failure::Unanswered(error.to_string()).into())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<Delivered>> {
        self.messages.poll_next_unpin(context).map(|message| match message {
            Some(message) => pulled(message),
            None => {
                self.consumer.link.ended(&self.client);
                SourceEvent::Broken("the connection is closed".into())
            }
        })
    }
}

/// Reads a message of the consumer. A record is known by its reply subject alone: old servers also store the status
/// that a foreign producer wrote.
pub(crate) fn pulled(message: Message) -> SourceEvent<Delivered> {
    if let Some(place) = message.reply.as_deref().and_then(StreamPlace::parse) {
        let StreamPlace { delivery, pending: left, .. } = place;
        return SourceEvent::Record { delivery, left, record: Delivered::of(place, message) };
    }
    let Some(status) = message.status.filter(|status| !status.is_success()) else {
        return SourceEvent::Broken("a message that is no delivery".into());
    };
    let left = |headers: &HeaderMap| headers.get("Nats-Pending-Messages")?.as_str().parse::<usize>().ok();
    match status.as_u16() {
        100 => SourceEvent::Alive,
        404 | 408 => SourceEvent::Ended(message.headers.as_ref().and_then(left).unwrap_or_default()),
        409 if message.description.as_deref().is_some_and(|text| text.contains(SERVED)) => {
            SourceEvent::Ended(message.headers.as_ref().and_then(left).unwrap_or_default())
        }
        409 if message.description.as_deref().is_some_and(|text| text.contains(TOO_LARGE)) => {
            SourceEvent::Full(message.headers.as_ref().and_then(left).unwrap_or_default())
        }
        // The consumer is gone, the server is leaving, or nobody is there.
        code => SourceEvent::Broken(format!("{code} {}", message.description.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::StatusCode;

    use super::*;

    fn message(status: Option<u16>, reply: Option<&str>) -> Message {
        Message {
            subject: "s".into(),
            reply: reply.map(Into::into),
            payload: Bytes::new(),
            headers: None,
            status: status.map(|status| StatusCode::from_u16(status).unwrap()),
            description: None,
            length: 0,
        }
    }

    #[test]
    fn a_record_with_a_status_is_a_record() {
        let reply = Some("$JS.ACK.S.C.1.7.3.1700000000000000000.9");
        for status in [None, Some(100), Some(404), Some(408), Some(409), Some(503)] {
            let event = pulled(message(status, reply));
            assert!(matches!(event, SourceEvent::Record { delivery: 3, left: 9, .. }), "{status:?}");
        }
        assert!(matches!(pulled(message(Some(100), None)), SourceEvent::Alive));
        assert!(matches!(pulled(message(Some(100), Some("$JS.FC.S.C.x"))), SourceEvent::Alive));
        assert!(matches!(pulled(message(Some(404), None)), SourceEvent::Ended(0)));
        let described = |text: &str| Message { description: Some(text.into()), ..message(Some(409), None) };
        assert!(matches!(pulled(described("Batch Completed")), SourceEvent::Ended(0)));
        assert!(matches!(pulled(described("Message Size Exceeds MaxBytes")), SourceEvent::Full(0)));
        assert!(matches!(pulled(described("Consumer Deleted")), SourceEvent::Broken(_)));
        assert!(matches!(pulled(message(Some(503), None)), SourceEvent::Broken(_)));
        assert!(matches!(pulled(message(None, None)), SourceEvent::Broken(_)));
    }
}

//! JetStream consumers as readers use them: made under a name of their own, pulled from, removed.
//!
//! Invariants: a name is never used twice (a random part is in it), and every name that was asked for is removed, also
//! where its creation was never answered: a server that was stopped may carry it out later.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::{Link, Removal};
use crate::error::Failure;
use crate::wire::Place;

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
    pub(crate) async fn pulls(&self) -> Outcome<Pulls> {
        let inbox = self.link.client.new_inbox();
        let messages = self.link.client.subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| Failure::Unanswered(error.to_string()))?;
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        Ok(Pulls { link: Arc::clone(&self.link), messages, inbox, next })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (link, subject) = (Arc::clone(&self.link), format!("CONSUMER.DELETE.{}.{}", self.stream, self.name));
        let removal = Removal::begin(&link);
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
    link: Arc<Link>,
    messages: Subscriber,
    inbox: String,
    next: String,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Pulled {
    Record(Place, Option<HeaderMap>, Bytes, Subject),
    /// A request ended with so many records not delivered.
    Ended(usize),
    Heartbeat,
    /// The consumer is gone, the server is leaving, or nobody is there.
    Broken(String),
}

impl Pulls {
    pub(crate) async fn request(&self, batch: usize, expires: Duration, heartbeat: Duration) -> Outcome<()> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let request = json!({ "batch": batch, "expires": nanos(expires), "idle_heartbeat": nanos(heartbeat) });
        let sent =
            self.link.client.publish_with_reply(self.next.clone(), self.inbox.clone(), request.to_string().into());
        sent.await.map_err(|error| Failure::Unanswered(error.to_string()))
    }

    pub(crate) async fn next(&mut self) -> Pulled {
        self.messages.next().await.map_or_else(|| Pulled::Broken("the connection is closed".into()), pulled)
    }

    /// What is there already.
    pub(crate) fn ready(&mut self) -> Option<Pulled> {
        self.messages.next().now_or_never().flatten().map(pulled)
    }
}

fn pulled(message: Message) -> Pulled {
    let Some(status) = message.status.filter(|status| !status.is_success()) else {
        let place = message.reply.as_deref().and_then(Place::parse);
        return match place {
            Some(place) => Pulled::Record(place, message.headers, message.payload, message.subject),
            None => Pulled::Broken("a message that is no delivery".into()),
        };
    };
    let left = |headers: &HeaderMap| headers.get("Nats-Pending-Messages")?.as_str().parse::<usize>().ok();
    match status.as_u16() {
        100 => Pulled::Heartbeat,
        404 | 408 => Pulled::Ended(message.headers.as_ref().and_then(left).unwrap_or_default()),
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
    mut take: impl FnMut(&Place, &str, Option<&HeaderMap>, &Bytes) -> bool,
) -> Outcome<()> {
    const BATCH: u64 = 500;
    let (consumer, mut left) = Consumer::create(link, stream, filter, start, headers_only).await?;
    if left == 0 {
        return Ok(());
    }
    let mut pulls = consumer.pulls().await?;
    let mut asked = 0;
    let mut delivered = 0;
    loop {
        if asked == 0 {
            asked = left.min(BATCH);
            pulls.request(asked as usize, link.config.fetch_wait, link.config.heartbeat).await?;
        }
        let silence = || Failure::Unanswered("the server fell silent while records were read".into());
        match tokio::time::timeout(link.config.heartbeat * 3, pulls.next()).await.map_err(|_| silence())? {
            Pulled::Record(place, headers, payload, subject) => {
                delivered += 1;
                if place.delivery != delivered {
                    return Err(Failure::Unanswered("a record was missing while records were read".into()));
                }
                (asked, left) = (asked - 1, left.saturating_sub(1));
                if !take(&place, &subject, headers.as_ref(), &payload) || left == 0 || place.pending == 0 {
                    return Ok(());
                }
            }
            Pulled::Heartbeat => {}
            // Retention or a purge took what was left.
            Pulled::Ended(_) => return Ok(()),
            Pulled::Broken(why) => return Err(Failure::Unanswered(why)),
        }
    }
}

fn rfc3339(millis: u64) -> String {
    let nanos = i128::from(millis) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

//! A record of others among those of a bus: what became of it, and that its key and all others went on in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::dead_letter::{DeadLetter, UNDECODABLE};
use eventbus_core::wire::WireRecord;
use eventbus_core::{Delivery, ErrorKind, FailurePolicy, Key, Position, TopicSpec};

use crate::history::parse_payload;
use crate::suite::common::{Collected, GROUP, TOPIC, keys, subscribe};
use crate::suite::failure::ensure;
use crate::suite::p0::failure::letters_of;
use crate::suite::{Failure, Peer, Run};

/// The key whose records lie around the foreign ones.
pub(super) const KEY: &str = "k";

const PARTITIONS: u32 = 2;

/// The partition of [`KEY`].
pub(super) fn partition() -> Result<u32, Failure> {
    Ok(Key::try_from(KEY)?.partition(PARTITIONS))
}

/// Makes a record of [`KEY`] with these headers.
pub(super) fn record(headers: &[(&'static str, &'static [u8])], payload: &'static [u8]) -> WireRecord {
    WireRecord {
        key: Some(Bytes::from_static(KEY.as_bytes())),
        headers: headers.iter().map(|(name, value)| ((*name).into(), Bytes::from_static(value))).collect(),
        payload: Bytes::from_static(payload),
    }
}

/// Makes a record of [`KEY`] with the attributes that an event must have, and these.
pub(super) fn event(more: &[(&'static str, &'static [u8])], payload: &'static [u8]) -> WireRecord {
    let needed: [(&str, &[u8]); 4] =
        [("ce_specversion", b"1.0"), ("ce_id", b"odd"), ("ce_source", b"/s"), ("ce_type", b"T")];
    record(&[&needed, more].concat(), payload)
}

/// What became of the foreign records.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The deliveries of those that were handled, as they came.
    pub(super) handled: Vec<Delivery>,
    /// The dead letters, as they lie in their topic.
    pub(super) letters: Vec<DeadLetter>,
}

impl Outcome {
    /// The one that was handled; nothing else may have become of it.
    pub(super) fn handled(&self) -> Result<&Delivery, Failure> {
        match (&self.handled[..], &self.letters[..]) {
            ([one], []) => Ok(one),
            _ => Err(Failure::wrong(format!("expected one that is handled, got {self:?}"))),
        }
    }

    /// The one that went to the policy as undecodable; nothing else may have become of it.
    pub(super) fn undecodable(&self) -> Result<&DeadLetter, Failure> {
        match (&self.handled[..], &self.letters[..]) {
            ([], [one]) if one.envelope.event_type() == UNDECODABLE && one.attempts == 0 => Ok(one),
            _ => Err(Failure::wrong(format!("expected one undecodable, got {self:?}"))),
        }
    }
}

/// A process with the topic and two envelopes of [`KEY`].
pub(super) async fn start(run: &Run) -> Result<Peer, Failure> {
    let peer = run.process().await?;
    peer.topic(TopicSpec::new(TOPIC).partitions(PARTITIONS)).await?;
    peer.publish_rounds(TOPIC, &[KEY.to_owned()], 2).await?;
    Ok(peer)
}

/// Publishes what lies behind the foreign records: two of [`KEY`], three of each of twelve others.
pub(super) async fn go_on(peer: &Peer) -> Result<(), Failure> {
    peer.publish_rounds(TOPIC, &[KEY.to_owned()], 2).await?;
    peer.publish_rounds(TOPIC, &keys("order", 12), 3).await
}

/// Handles all that the topic holds, and returns what became of the records that no bus wrote. All others must have
/// been handled once, in the order of their keys.
pub(super) async fn outcome(run: &Run, peer: &Peer) -> Result<Outcome, Failure> {
    let collected = Collected::default();
    let options = subscribe().then(FailurePolicy::DeadLetter);
    let subscription = peer.bus().subscribe(options, collected.handler(0)).await?;
    run.settled(TOPIC, &[GROUP]).await?;
    subscription.drain(Duration::from_secs(5)).await?;
    let (own, handled): (Vec<_>, Vec<_>) =
        collected.all().into_iter().partition(|delivery| parse_payload(delivery.envelope().payload()).is_ok());
    in_order(&own)?;
    let letters = match run.log(&letters_of(GROUP)?).await {
        Err(Failure::Bus(error)) if error.kind() == ErrorKind::UnknownTopic => Vec::new(),
        letters => letters?.iter().map(DeadLetter::read).collect::<Result<_, _>>()?,
    };
    Ok(Outcome { handled, letters })
}

/// Stores one foreign record in the middle of [`KEY`]'s, and returns what became of it.
pub(super) async fn among(run: &Run, record: WireRecord) -> Result<Outcome, Failure> {
    let peer = start(run).await?;
    run.fixture().store_raw(TOPIC, partition()?, record).await?;
    go_on(&peer).await?;
    outcome(run, &peer).await
}

/// Each key's envelopes were handled once, in the order of their numbers and of the log.
fn in_order(own: &[Delivery]) -> Result<(), Failure> {
    let mut seen: BTreeMap<&[u8], Vec<(u64, Position)>> = BTreeMap::new();
    for delivery in own {
        let number = parse_payload(delivery.envelope().payload()).map_or(0, |numbered| numbered.number);
        let key = delivery.envelope().key().map(Key::as_bytes).unwrap_or_default();
        seen.entry(key).or_default().push((number, delivery.position()));
    }
    ensure!(seen.len() == 13, "13 keys were published, {} were handled: {seen:?}", seen.len());
    for (key, handled) in &seen {
        let expected = if *key == KEY.as_bytes() { 4 } else { 3 };
        let numbers: Vec<u64> = handled.iter().map(|(number, _)| *number).collect();
        ensure!(numbers == (1..=expected).collect::<Vec<_>>(), "{} is handled as {handled:?}", key.escape_ascii());
        ensure!(handled.is_sorted_by_key(|(_, position)| *position), "against the log: {handled:?}");
    }
    Ok(())
}

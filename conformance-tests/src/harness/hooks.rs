//! The recording hook: records the bus's reports when they are made.

use std::sync::Arc;

use eventbus_core::{BusEvent, Error, ErrorKind, Hook, Location, Receipt};

use super::process::{Offer, Process};
use crate::history::{FinishedBy, Kind, PublishOutcome};

/// The extension that the bus sets on a replayed dead letter.
const REPLAY: &str = "eventbusreplayto";

/// A hook that records the bus's reports. One a process.
#[derive(Debug, Clone)]
pub struct RecordingHook(Arc<Process>);

impl RecordingHook {
    /// The hook of a process.
    #[must_use]
    pub fn new(process: Arc<Process>) -> Self {
        Self(process)
    }

    fn finished(&self, at: &Location, by: FinishedBy) {
        let Some(position) = at.position else { return };
        self.0.note(Kind::Finished {
            topic: at.topic.as_str().into(),
            group: at.group.as_str().into(),
            partition: at.partition,
            position: position.get(),
            by,
        });
    }

    fn sealed(&self, topic: &str, error: &Error) {
        let refused = error.refusal().map(|refusal| (topic.to_owned(), refusal.id.clone()));
        let call = refused.and_then(|refused| self.0.offers().get(&refused).map(|offer| offer.call));
        if let Some(call) = call {
            self.0.note(Kind::Sealed { call });
        }
    }

    fn published(&self, topic: &str, id: &str, result: &Result<Receipt, Error>) {
        let process = &self.0;
        let call = {
            let mut offers = process.offers();
            let Some(offer) = offers.get_mut(&(topic.to_owned(), id.to_owned())) else { return };
            offer.told = true;
            offer.call
        };
        process.note(Kind::Published { call, outcome: outcome_of(process, topic, call, result) });
    }
}

impl Hook for RecordingHook {
    fn on_event(&self, event: &BusEvent<'_>) {
        match event {
            BusEvent::Published { topic, envelope, result, .. } if envelope.extension(REPLAY).is_none() => {
                self.published(topic.as_str(), envelope.id(), result);
            }
            BusEvent::Sealed { topic, error, .. } => self.sealed(topic.as_str(), error),
            BusEvent::DeadLettered { at, .. } => {
                // Believed if the broker has the letter: only a confirmed one finishes its envelope.
                let position = at.position.map_or(0, |position| position.get());
                if self.0.has_letter(at.topic.as_str(), at.group.as_str(), at.partition, position) {
                    self.finished(at, FinishedBy::DeadLettered);
                }
            }
            BusEvent::Skipped { at, .. } => self.finished(at, FinishedBy::Skipped),
            BusEvent::CopyDropped { at, .. } => self.finished(at, FinishedBy::DroppedCopy),
            BusEvent::ReplayIgnored { at } => self.finished(at, FinishedBy::OtherGroupsReplay),
            BusEvent::DataLost { at, from, to } => self.0.note(Kind::DataLost {
                topic: at.topic.as_str().into(),
                group: at.group.as_str().into(),
                partition: at.partition,
                from: from.get(),
                to: to.get(),
            }),
            BusEvent::LogReset { at } => self.0.expect_reset(at.topic.as_str(), at.group.as_str(), at.partition),
            _ => {}
        }
    }
}

/// Turns an answer of the bus into an outcome of the history.
pub(super) fn outcome_of(process: &Process, topic: &str, call: u64, result: &Result<Receipt, Error>) -> PublishOutcome {
    let error = match result {
        Ok(receipt) => {
            return PublishOutcome::Confirmed {
                partition: receipt.partition,
                position: Some(receipt.position.get()),
                duplicate: receipt.duplicate,
            };
        }
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::Unknown => PublishOutcome::Unknown,
        ErrorKind::Withdrawn => PublishOutcome::Withdrawn,
        kind => {
            let offers = process.offers();
            let named = error.refusal().and_then(|refusal| offers.get(&(topic.to_owned(), refusal.id.clone())));
            // A topic that is sealed as a whole names a publish of any key, which is no root within this one.
            let own = offers.get(&(topic.to_owned(), format!("{}-{call}", process.number())));
            let same_key = |offer: &&Offer| own.is_some_and(|own| own.key == offer.key && own.call != offer.call);
            let root = named.filter(same_key).map(|offer| offer.number);
            PublishOutcome::Refused { class: kind.as_str().into(), root }
        }
    }
}

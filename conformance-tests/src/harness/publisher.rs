//! The recording publisher: numbers the envelopes of each key 1, 2, 3 … and records every offer and every outcome.
//!
//! One lock orders publishes against the moment in which an outcome gets into the caller's hands, so that the history
//! shows on which side of it a publish was called (the seal of P2 depends on it).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use eventbus_core::{Confirmation, Envelope, Error, EventBus, Key, Publishing, Receipt};

use super::hooks::outcome_of;
use super::process::{Epochs, Offer, Process, lock};
use crate::history::{self, Kind, Name, make_payload};

/// The next number of each key of each topic: shared by all publishers of a run, since a number is offered once.
#[derive(Debug, Default)]
pub struct Numbers {
    next: Mutex<BTreeMap<(String, Vec<u8>), u64>>,
    epochs: Arc<Epochs>,
}

impl Numbers {
    pub(super) fn epochs(&self) -> Arc<Epochs> {
        self.epochs.clone()
    }

    /// Takes the number of the next envelope.
    fn next(&self, topic: &str, key: &[u8]) -> u64 {
        let mut numbers = lock(&self.next);
        let number = numbers.entry((topic.to_owned(), key.to_vec())).or_default();
        *number += 1;
        *number
    }

    /// The number of envelopes offered of a key.
    #[must_use]
    pub fn offered(&self, topic: &str, key: &str) -> u64 {
        lock(&self.next).get(&(topic.to_owned(), key.as_bytes().to_vec())).copied().unwrap_or(0)
    }
}

/// A publisher on one bus, on the record. Cheap to clone.
///
/// Order is promised among the publishes of one bus: a key belongs to one publisher at a time.
#[derive(Clone)]
pub struct Publisher {
    bus: Arc<dyn EventBus>,
    process: Arc<Process>,
    numbers: Arc<Numbers>,
    /// Held while a publish is called, and while an outcome is handed out.
    line: Arc<Mutex<()>>,
}

impl Publisher {
    pub(super) fn new(bus: Arc<dyn EventBus>, process: Arc<Process>, numbers: Arc<Numbers>) -> Self {
        Self { bus, process, numbers, line: Arc::default() }
    }

    /// Publishes the next envelope of a key (without one, if the key is empty), with `size` bytes of payload at the
    /// least. The outcome may be awaited, or dropped: the bus's hook records it as well.
    pub fn publish(&self, topic: &str, key: &str, size: usize) -> Outcome {
        let _line = lock(&self.line);
        let number = self.numbers.next(topic, key.as_bytes());
        let call = self.process.next_call();
        let id = format!("{}-{call}", self.process.number());
        let told = history::Key::from(key);
        let payload = make_payload(topic, &told, number, size);
        self.process.note(Kind::Offered {
            call,
            bus: self.process.number(),
            topic: topic.into(),
            key: told,
            number,
            id: id.as_str().into(),
            digest: history::digest(&payload),
        });
        self.process.offers().insert((topic.into(), id.clone()), Offer { call, key: key.into(), number, told: false });
        let mut builder = Envelope::builder("Numbered", "/conformance").id(id).sequence(number).payload(payload);
        if !key.is_empty() {
            builder = builder.key(key);
        }
        let publishing = match builder.build() {
            Ok(envelope) => self.bus.publish(topic, envelope),
            Err(error) => Publishing::failed(error),
        };
        Outcome { state: OutcomeState::Publishing(publishing), publisher: self.clone(), topic: topic.into(), call }
    }

    /// Unseals a key, on the record.
    ///
    /// # Errors
    /// As [`EventBus::resume`].
    pub fn resume(&self, topic: &str, key: &str) -> eventbus_core::Result<()> {
        let _line = lock(&self.line);
        self.process.note(Kind::Resumed { bus: self.process.number(), topic: topic.into(), key: key.into() });
        self.bus.resume(topic, Some(&Key::try_from(key)?))
    }

    fn hand_out(&self, topic: &Name, call: u64, result: &Result<Receipt, Error>) {
        if !self.told(topic, call) {
            self.process.note(Kind::Published { call, outcome: outcome_of(&self.process, topic, call, result) });
        }
        self.process.note(Kind::Returned { call });
    }

    /// Whether the hook has recorded the outcome already.
    fn told(&self, topic: &Name, call: u64) -> bool {
        let id = format!("{}-{call}", self.process.number());
        self.process.offers().get(&(topic.to_string(), id)).is_some_and(|offer| offer.told)
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("process", &self.process.number()).finish_non_exhaustive()
    }
}

enum OutcomeState {
    Publishing(Publishing),
    Confirming(Confirmation),
    Over,
}

/// A publish on its way. Resolves to the bus's answer, and records that the caller has it.
#[must_use = "dropping it leaves the outcome to the hook"]
pub struct Outcome {
    state: OutcomeState,
    publisher: Publisher,
    topic: Name,
    call: u64,
}

impl Outcome {
    /// Waits for room only.
    ///
    /// # Errors
    /// The error of the publish, if it is over by then.
    pub async fn admitted(&mut self) -> Result<(), Error> {
        std::future::poll_fn(|cx| self.poll_admitted(cx)).await
    }

    /// Withdraws the publish, if it was not sent yet. `true` if that came in time.
    pub fn cancel(&self) -> bool {
        let withdrawal = match &self.state {
            OutcomeState::Publishing(publishing) => publishing.cancel(),
            OutcomeState::Confirming(confirmation) => confirmation.cancel(),
            OutcomeState::Over => return false,
        };
        withdrawal == eventbus_core::Withdrawal::Withdrawn
    }

    fn poll_admitted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let OutcomeState::Publishing(publishing) = &mut self.state else { return Poll::Ready(Ok(())) };
        let _line = lock(&self.publisher.line);
        match pin!(publishing).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(confirmation)) => {
                self.state = OutcomeState::Confirming(confirmation);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                self.state = OutcomeState::Over;
                self.publisher.hand_out(&self.topic, self.call, &Err(error.clone()));
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Future for Outcome {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_admitted(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        let this = &mut *self;
        let OutcomeState::Confirming(confirmation) = &mut this.state else { return Poll::Pending };
        let _line = lock(&this.publisher.line);
        let Poll::Ready(result) = pin!(confirmation).poll(cx) else { return Poll::Pending };
        this.state = OutcomeState::Over;
        this.publisher.hand_out(&this.topic, this.call, &result);
        Poll::Ready(result)
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome").field("topic", &self.topic).field("call", &self.call).finish_non_exhaustive()
    }
}

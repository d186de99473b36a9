//! Lines in flight to the broker.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use eventbus::{
    BatchConfirmation, BatchPublishing, Confirmation, Envelope, Error, ErrorKind, EventBus, Key, Publishing, Receipt,
};
use futures_util::FutureExt;

/// Line of the input whose envelope was handed to the bus.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) id: String,
    pub(super) key: Option<Key>,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) line: Line,
    /// The receipt or the error; `None` if nobody waits for it.
    pub(super) result: Option<Result<Receipt, Error>>,
}

/// Flight of one publish, or of one batch.
#[derive(Debug)]
pub(super) struct Flight {
    lines: Vec<Line>,
    step: Step,
    /// Whether only room is awaited, not the answer.
    fire: bool,
}

#[derive(Debug)]
enum Step {
    Room(Publishing),
    Answer(Confirmation),
    BatchRoom(BatchPublishing),
    BatchAnswer(BatchConfirmation),
    /// The batch was refused as a whole.
    BatchFailed(Error),
}

fn split(lines: Vec<(usize, Envelope)>) -> (Vec<Line>, Vec<Envelope>) {
    let line = |(number, envelope): (usize, Envelope)| {
        let (id, key) = (envelope.id().to_owned(), envelope.key().cloned());
        (Line { number, id, key, bytes: envelope.size() }, envelope)
    };
    lines.into_iter().map(line).unzip()
}

/// Finds the line whose envelope made the bus refuse its batch: the largest of those with the id that the error names.
fn culprit(lines: &[Line], error: &Error) -> Option<usize> {
    let refused = error.refusal()?;
    let named = lines.iter().enumerate().filter(|(_, line)| line.id == refused.id);
    named.max_by_key(|(_, line)| line.bytes).map(|(which, _)| which)
}

impl Flight {
    /// Publishes the one line, at the call.
    pub(super) fn single(bus: &dyn EventBus, topic: &str, lines: Vec<(usize, Envelope)>, fire: bool) -> Self {
        let (lines, envelopes) = split(lines);
        let mut publishing = envelopes.into_iter().map(|envelope| bus.publish(topic, envelope));
        let nothing = || Publishing::failed(Error::new(ErrorKind::InvalidEnvelope, "no line"));
        let step = Step::Room(publishing.next().unwrap_or_else(nothing));
        Self { lines, step, fire }
    }

    /// Publishes the lines together, at the call. An envelope that is too large makes the bus refuse the whole batch:
    /// it is taken out, and the others are published before anything else is. Returns also the outcomes of those that
    /// were taken out; `None` if no line is left.
    pub(super) fn batch(
        bus: &dyn EventBus,
        topic: &str,
        lines: Vec<(usize, Envelope)>,
    ) -> (Option<Self>, Vec<Outcome>) {
        let (mut lines, mut envelopes) = split(lines);
        let mut refused = Vec::new();
        while !lines.is_empty() {
            let mut publishing = bus.publish_batch(topic, envelopes.clone());
            let error = match (&mut publishing).now_or_never() {
                Some(Err(error)) if error.kind() == ErrorKind::TooLarge => error,
                Some(Ok(confirmation)) => return (Some(Self::of(lines, Step::BatchAnswer(confirmation))), refused),
                Some(Err(error)) => return (Some(Self::of(lines, Step::BatchFailed(error))), refused),
                None => return (Some(Self::of(lines, Step::BatchRoom(publishing))), refused),
            };
            let Some(culprit) = culprit(&lines, &error) else {
                return (Some(Self::of(lines, Step::BatchFailed(error))), refused);
            };
            // The refusal sealed every key of the batch, and is reported: all of them may go on (P2).
            for key in lines.iter().filter_map(|line| line.key.as_ref()) {
                if let Err(error) = bus.resume(topic, Some(key)) {
                    tracing::warn!(%error, "a key could not be resumed");
                }
            }
            envelopes.remove(culprit);
            refused.push(Outcome { line: lines.remove(culprit), result: Some(Err(error)) });
        }
        (None, refused)
    }

    const fn of(lines: Vec<Line>, step: Step) -> Self {
        Self { lines, step, fire: false }
    }

    fn outcomes(&mut self, results: impl IntoIterator<Item = Option<Result<Receipt, Error>>>) -> Vec<Outcome> {
        let lines = std::mem::take(&mut self.lines).into_iter();
        lines.zip(results).map(|(line, result)| Outcome { line, result }).collect()
    }

    /// Withdraws what is certainly not stored. What became of each line is known when the bus is closed.
    pub(super) fn withdraw(&self) {
        match &self.step {
            Step::Room(publishing) => drop(publishing.cancel()),
            Step::Answer(confirmation) => drop(confirmation.cancel()),
            Step::BatchRoom(publishing) => drop(publishing.cancel()),
            Step::BatchAnswer(confirmation) => drop(confirmation.cancel()),
            Step::BatchFailed(_) => {}
        }
    }
}

impl Future for Flight {
    type Output = Vec<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.step {
                Step::Room(publishing) => match ready!(Pin::new(publishing).poll(cx)) {
                    Ok(_) if this.fire => return Poll::Ready(this.outcomes([None])),
                    Ok(confirmation) => this.step = Step::Answer(confirmation),
                    Err(_) if this.fire => return Poll::Ready(this.outcomes([None])),
                    Err(error) => return Poll::Ready(this.outcomes([Some(Err(error))])),
                },
                Step::Answer(confirmation) => {
                    let result = ready!(Pin::new(confirmation).poll(cx));
                    return Poll::Ready(this.outcomes([Some(result)]));
                }
                Step::BatchRoom(publishing) => match ready!(Pin::new(publishing).poll(cx)) {
                    Ok(confirmation) => this.step = Step::BatchAnswer(confirmation),
                    Err(error) => this.step = Step::BatchFailed(error),
                },
                Step::BatchFailed(error) => {
                    let error = error.clone();
                    return Poll::Ready(this.outcomes(std::iter::repeat_with(|| Some(Err(error.clone())))));
                }
                Step::BatchAnswer(confirmation) => {
                    let outcome = ready!(Pin::new(confirmation).poll(cx));
                    let results: Vec<_> = outcome.results().iter().cloned().map(Some).collect();
                    return Poll::Ready(this.outcomes(results));
                }
            }
        }
    }
}

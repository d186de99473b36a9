//! Replacement of a client: all its records are told, and only then its line goes on with another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Pipeline;
use super::failure::{DeliveryError, DeliveryErrorKind};
use super::line::{Failed, Line};
use super::producer::Producer;
use super::quarantine::TopicPartition;
use crate::model::Topic;
use crate::runtime::sync::atomic::Ordering;

impl<P: Pipeline> Producer<P> {
    /// Ends a line's client, tells the fates of its records, and lets the line go on with another client.
    pub(super) async fn replace(&self, line: &Arc<Line<P::Client>>) {
        let _ending = line.ending.lock().await;
        let client = {
            let mut state = line.state.lock();
            state.failing = true;
            state.client.take()
        };
        let reason = match client {
            Some(client) => tokio::task::spawn_blocking(move || P::end(client)).await.ok().flatten(),
            None => None,
        };
        let (mut failed, back) = line.state.lock().drain();
        clarify(&mut failed, reason.as_ref());
        let gone = self.gone(&failed).await;
        let suspected = if line.alone { HashSet::new() } else { self.suspect(&failed).await };
        for (submission, failure) in failed {
            let fate = failure.fate(line.alone, gone.contains(&submission.topic));
            self.tell(line, submission, fate);
        }
        for (submission, fate) in back {
            self.tell(line, submission, fate);
        }
        // Until now no record of these partitions was taken, and none at all by this line.
        self.quarantine.lock().open(&suspected);
        line.state.lock().go_on();
    }

    /// Returns the topics that reports call unknown, and that are indeed missing.
    async fn gone(&self, failed: &Failed) -> HashSet<Topic> {
        let Some(pipeline) = self.pipeline.get() else { return HashSet::new() };
        let named = failed.iter().filter(|(_, failure)| failure.verdict == DeliveryErrorKind::Vanished);
        let mut topics: HashSet<Topic> = named.map(|(submission, _)| submission.topic.clone()).collect();
        for topic in topics.clone() {
            if !pipeline.is_gone(&topic).await {
                topics.remove(&topic);
            }
        }
        topics
    }

    /// Puts partitions with a refused batch in quarantine, and learns the limits of their topics anew.
    async fn suspect(&self, failed: &Failed) -> HashSet<TopicPartition> {
        let mut places = HashSet::new();
        for (submission, failure) in failed {
            if matches!(failure.verdict, DeliveryErrorKind::SomeOfBatch(_)) {
                let place = (submission.topic.clone(), submission.partition);
                self.quarantine.lock().suspect(place.clone(), submission.stamp);
                places.insert(place);
            }
        }
        if let Some(pipeline) = self.pipeline.get() {
            let topics: HashSet<&Topic> = places.iter().map(|(topic, _)| topic).collect();
            for topic in topics {
                // The limit may have been lowered since it was last read; the quarantine then keeps to the new one.
                pipeline.refresh(topic).await;
            }
        }
        places
    }

    /// Ends all clients. Every ticket is told before this returns, and nothing is taken any more. Unreported records
    /// are perhaps stored. Takes as long as [`Pipeline::end`] and the questions about topics do. Not cancel safe: the
    /// remaining tickets are told when the producer is dropped.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut lines: Vec<Arc<Line<P::Client>>> = self.lines.lock().drain().map(|(_, line)| line).collect();
        lines.extend(self.quarantine.lock().lines());
        for line in lines {
            self.replace(&line).await;
        }
    }
}

/// Gives records that were told nothing of their own the reason that is known of another: of their topic, if it takes no
/// record of this user, or of the client.
fn clarify(failed: &mut Failed, reason: Option<&DeliveryError>) {
    let forbidden = failed.iter().filter(|(_, failure)| failure.verdict == DeliveryErrorKind::Forbidden);
    let forbidden: HashMap<Topic, DeliveryError> =
        forbidden.map(|(submission, failure)| (submission.topic.clone(), failure.clone())).collect();
    for (submission, failure) in failed.iter_mut().filter(|(_, failure)| failure.verdict == DeliveryErrorKind::Unclear)
    {
        if let Some(known) = forbidden.get(&submission.topic).or(reason) {
            *failure = known.clone();
        }
    }
}

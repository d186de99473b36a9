//! Retries that last. An operation that fails and is tried again is told, not waited for in silence.
//!
//! Invariant: a retry that is older than a given age is told with the broker's own words: to hooks, as a warning and in
//! a gauge. It is told again after waits that double. The end of a retry that was told is told, too.

use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::time::Instant;

use super::events::{BusEvent, Hooks};
use super::retry::Retry;
use super::telemetry::labels;
use crate::model::{Group, Topic};
use crate::runtime::Mutex;

/// The longest wait before a retry is told again.
const LONGEST: Duration = Duration::from_secs(300);

/// The teller of one kind of operation on one topic: at most one retry, the oldest, is told at a time.
pub(crate) struct RetryNotices {
    hooks: Hooks,
    after: Duration,
    operation: &'static str,
    topic: Topic,
    group: Option<Group>,
    retrying: Gauge,
    told: Mutex<Option<ToldRetry>>,
}

/// A retry that was told and is not over.
struct ToldRetry {
    since: Instant,
    again_at: Instant,
    wait: Duration,
}

impl RetryNotices {
    /// Makes the teller of an operation, whose retries are told at the age of `after`.
    pub(crate) fn new(
        hooks: Hooks,
        after: Duration,
        system: &'static str,
        operation: &'static str,
        topic: &Topic,
    ) -> Self {
        let retrying = gauge!("eventbus.operations.retrying", labels(system, topic, operation));
        Self { hooks, after, operation, topic: topic.clone(), group: None, retrying, told: Mutex::new(None) }
    }

    /// Returns the age at which a retry is told.
    pub(crate) fn after(&self) -> Duration {
        self.after
    }

    /// Takes the oldest retry of the moment; `None` where nothing is tried again. To be called at every failure and
    /// success, or now and then. Tells what is due. Not to be called under a lock.
    pub(crate) fn look(&self, oldest: Option<&Retry<'_>>) {
        match oldest.filter(|retry| retry.age >= self.after) {
            Some(retry) => self.lasts(retry),
            None => self.over(),
        }
    }

    fn lasts(&self, retry: &Retry<'_>) {
        let now = Instant::now();
        {
            let mut told = self.told.lock();
            let wait = match &*told {
                Some(before) if now < before.again_at => return,
                Some(before) => (before.wait * 2).min(LONGEST),
                None => self.after,
            };
            let since = told.as_ref().map_or_else(|| now.checked_sub(retry.age).unwrap_or(now), |before| before.since);
            *told = Some(ToldRetry { since, again_at: now + wait, wait });
        }
        self.retrying.set(retry.others as f64 + 1.0);
        tracing::warn!(target: "eventbus", "{retry}");
        self.hooks.emit(&BusEvent::Retrying(retry));
    }

    fn over(&self) {
        let Some(told) = self.told.lock().take() else { return };
        self.retrying.set(0.0);
        let (operation, topic, group, age) = (self.operation, &self.topic, self.group.as_ref(), told.since.elapsed());
        tracing::info!(target: "eventbus", operation, %topic, ?age, "no retry lasts any more");
        self.hooks.emit(&BusEvent::Recovered { operation, topic, group, age });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;
    use crate::model::{Error, ErrorKind, Key};

    #[tokio::test(start_paused = true)]
    async fn a_retry_is_told_when_it_is_late_then_ever_more_seldom_and_once_when_it_is_over() {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let hear = Arc::clone(&told);
        let hook = move |event: &BusEvent<'_>| {
            hear.lock().unwrap().push(match event {
                BusEvent::Retrying(retry) => retry.to_string(),
                BusEvent::Recovered { age, .. } => format!("over after {} s", age.as_secs()),
                other => format!("{other:?}"),
            });
        };
        let topic: Topic = "orders".parse().unwrap();
        let hooks = Hooks::new(vec![Arc::new(hook)]);
        let notices = RetryNotices::new(hooks, Duration::from_secs(5), "memory", "send", &topic);
        let (begin, error, key) = (Instant::now(), Error::new(ErrorKind::Unavailable, "full"), Key::new("k").unwrap());
        while begin.elapsed() < Duration::from_secs(36) {
            let retry = Retry::new("send", &topic, begin.elapsed(), &error);
            notices.look(Some(&Retry { partition: Some(3), key: Some(&key), others: 2, ..retry }));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        notices.look(None);
        notices.look(None);
        let line = |age| {
            format!(
                "send: topic orders, partition 3, key k: no success for {age} s, nor for 2 more; it is tried again: \
                 unavailable: full"
            )
        };
        let expected = [line(5), line(10), line(20), "over after 36 s".to_owned()];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}

//! Creation, comparison and change of topics, the same on every backend.
//!
//! Invariants: the settings asked for are compared with those that the broker reports, also right after creation, since
//! brokers silently accept settings that they do not know. Describing a topic never makes it.

use std::time::Duration;

use super::{Backend, Capabilities, TopicDescription};
use crate::model::{Error, ErrorKind, OnExisting, Result, Storage, Topic, TopicSpec};
use crate::runtime::poll_until;
use crate::validate::unsupported;

/// The time for which a differing topic is described again, where the broker is slow: somebody else may just have made
/// it.
const JUST_MADE: Duration = Duration::from_secs(2);

/// Brings a topic into the state that `spec` describes, treating an existing topic as the spec says. Idempotent. When
/// the function returns, the topic can be described, written and read.
///
/// Cancel safe: another call completes what this one began.
///
/// # Errors
/// `InvalidName` or `InvalidConfig` for an impossible spec; `Unsupported` for a setting that the backend lacks;
/// `TopicExists` with [`OnExisting::CreateOnly`]; `TopicMismatch` naming the setting and both values; and the broker's
/// own errors.
///
/// ```
/// use eventbus_core::TopicSpec;
/// use eventbus_core::backend::{Backend, ensure_topic};
///
/// async fn partitions(backend: &dyn Backend) -> eventbus_core::Result<u32> {
///     Ok(ensure_topic(backend, &TopicSpec::new("orders").partitions(8)).await?.spec.partitions)
/// }
/// ```
pub async fn ensure_topic<B: Backend + ?Sized>(backend: &B, spec: &TopicSpec) -> Result<TopicDescription> {
    let topic = spec.validate()?;
    ensure(backend, &topic, spec).await.map_err(|error| error.about("topic", &topic))
}

async fn ensure<B: Backend + ?Sized>(backend: &B, topic: &Topic, spec: &TopicSpec) -> Result<TopicDescription> {
    let Capabilities { settles, memory_storage, .. } = backend.capabilities();
    if spec.storage == Storage::Memory && !memory_storage {
        return Err(unsupported("storage", "expected file, this backend keeps no topic in memory only"));
    }
    let asked = backend.in_force(spec)?;
    let found = match backend.describe_topic(topic).await {
        Err(error) if error.kind() == ErrorKind::UnknownTopic => {
            if backend.create_topic(&asked).await? {
                return poll_until(settles, Result::is_err, || agreed(backend, topic, &asked)).await;
            }
            // Another client was faster.
            poll_until(settles, Result::is_err, || backend.describe_topic(topic)).await?
        }
        found => found?,
    };
    match spec.on_existing {
        OnExisting::CreateOnly => Err(Error::new(ErrorKind::TopicExists, "the topic exists already")),
        OnExisting::LeaveAlone => Ok(found),
        OnExisting::Validate => match compared(found, &asked) {
            Err(_) if !settles.is_zero() => {
                poll_until(settles.min(JUST_MADE), differs, || agreed(backend, topic, &asked)).await
            }
            compared => compared,
        },
        OnExisting::CreateOrUpdate => {
            found.spec.agrees_in_fixed(&asked)?;
            backend.update_topic(&asked).await?;
            poll_until(settles, differs, || agreed(backend, topic, &asked)).await
        }
    }
}

async fn agreed<B: Backend + ?Sized>(backend: &B, topic: &Topic, asked: &TopicSpec) -> Result<TopicDescription> {
    compared(backend.describe_topic(topic).await?, asked)
}

fn compared(found: TopicDescription, asked: &TopicSpec) -> Result<TopicDescription> {
    found.spec.agrees_in_fixed(asked)?;
    found.spec.agrees_in_changeable(asked)?;
    Ok(found)
}

fn differs<T>(seen: &Result<T>) -> bool {
    seen.as_ref().is_err_and(|error| error.kind() == ErrorKind::TopicMismatch)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use tokio::time::Instant;

    use super::*;
    use crate::backend::{Capabilities, ForwardBackend, LogState};
    use crate::bench::stored::Stored;

    /// A broker that accepts every spec and changes some settings on its own.
    #[derive(Debug, Default)]
    struct Broker {
        inner: Stored,
        settles: Duration,
        has: Mutex<Option<TopicSpec>>,
        /// Answers about the topic that come before the true one.
        before: Mutex<VecDeque<Result<TopicSpec>>>,
        /// The topic that another client makes first.
        faster: Option<TopicSpec>,
        /// Replicas that the broker sets, whatever the spec says.
        copies: Option<u32>,
        calls: Mutex<Vec<&'static str>>,
    }

    impl Broker {
        fn with(spec: TopicSpec) -> Self {
            Self { has: Mutex::new(Some(spec)), ..Self::default() }
        }

        fn take(&self, spec: &TopicSpec) {
            let mut taken = spec.clone();
            taken.replicas = self.copies.unwrap_or(spec.replicas);
            *self.has.lock().unwrap() = Some(taken);
        }

        fn calls(&self) -> Vec<&'static str> {
            std::mem::take(&mut self.calls.lock().unwrap())
        }
    }

    #[async_trait]
    impl ForwardBackend for Broker {
        fn inner(&self) -> &dyn Backend {
            &self.inner
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities { settles: self.settles, ..self.inner.capabilities() }
        }

        fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec> {
            if spec.max_messages.is_some() {
                return Err(Error::new(ErrorKind::Unsupported, "no counts"));
            }
            // The broker has no duplicate window.
            Ok(spec.clone().duplicate_window(Duration::ZERO))
        }

        async fn create_topic(&self, spec: &TopicSpec) -> Result<bool> {
            self.calls.lock().unwrap().push("create");
            if let Some(faster) = &self.faster {
                *self.has.lock().unwrap() = Some(faster.clone());
                return Ok(false);
            }
            self.take(spec);
            Ok(true)
        }

        async fn update_topic(&self, spec: &TopicSpec) -> Result<()> {
            self.calls.lock().unwrap().push("update");
            self.take(spec);
            Ok(())
        }

        async fn describe_topic(&self, _: &Topic) -> Result<TopicDescription> {
            self.calls.lock().unwrap().push("describe");
            let unknown = || Error::new(ErrorKind::UnknownTopic, "no such topic");
            let seen = if self.has.lock().unwrap().is_some() { self.before.lock().unwrap().pop_front() } else { None };
            let spec = seen.unwrap_or_else(|| self.has.lock().unwrap().clone().ok_or_else(unknown))?;
            let logs = vec![LogState::default(); spec.partitions as usize];
            Ok(TopicDescription::new(spec, "one", logs))
        }
    }

    fn spec() -> TopicSpec {
        TopicSpec::new("t").partitions(4)
    }

    /// The spec as the broker keeps it.
    fn kept() -> TopicSpec {
        spec().duplicate_window(Duration::ZERO)
    }

    async fn refused(broker: &Broker, spec: TopicSpec) -> (ErrorKind, String) {
        let error = ensure_topic(broker, &spec).await.unwrap_err();
        assert!(error.context().any(|(name, value)| (name, value) == ("topic", "t")), "{error}");
        (error.kind(), error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_topic_is_made_and_compared() {
        for way in [OnExisting::CreateOnly, OnExisting::LeaveAlone, OnExisting::Validate, OnExisting::CreateOrUpdate] {
            let broker = Broker::default();
            let made = ensure_topic(&broker, &spec().on_existing(way)).await.unwrap();
            assert_eq!(made.spec.partitions, 4, "{way:?}");
            assert_eq!(broker.calls(), ["describe", "create", "describe"], "{way:?}");
            let silent = Broker { copies: Some(1), ..Broker::default() };
            let (kind, error) = refused(&silent, spec().replicas(3).on_existing(way)).await;
            assert_eq!(kind, ErrorKind::TopicMismatch, "{way:?}");
            assert!(error.contains("replicas"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_existing_topic_is_treated_as_the_spec_says() {
        let ensure = |way, asked: TopicSpec| async move {
            let broker = Broker::with(kept());
            let ensured = ensure_topic(&broker, &asked.on_existing(way)).await;
            (ensured.map(|made| made.spec).map_err(|error| error.kind()), broker.calls())
        };
        let (only, calls) = ensure(OnExisting::CreateOnly, spec()).await;
        assert_eq!((only.unwrap_err(), calls), (ErrorKind::TopicExists, vec!["describe"]));
        let (left, calls) = ensure(OnExisting::LeaveAlone, spec().partitions(9).replicas(3)).await;
        assert_eq!((left.unwrap(), calls), (kept(), vec!["describe"]));
        let (same, calls) = ensure(OnExisting::Validate, spec().duplicate_window(Duration::from_secs(9))).await;
        assert_eq!(
            (same.unwrap(), calls),
            (kept(), vec!["describe"]),
            "what the broker does not know is no difference"
        );
        for other in [spec().partitions(9), spec().replicas(3)] {
            let (other, calls) = ensure(OnExisting::Validate, other).await;
            assert_eq!((other.unwrap_err(), calls), (ErrorKind::TopicMismatch, vec!["describe"]));
        }
        let (changed, calls) = ensure(OnExisting::CreateOrUpdate, spec().replicas(3)).await;
        assert_eq!((changed.unwrap().replicas, calls), (3, vec!["describe", "update", "describe"]));
        let (fixed, calls) = ensure(OnExisting::CreateOrUpdate, spec().partitions(9)).await;
        assert_eq!((fixed.unwrap_err(), calls), (ErrorKind::TopicMismatch, vec!["describe"]), "keys would move");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_the_first_finds_an_existing_one() {
        let raced = || Broker { faster: Some(kept()), ..Broker::default() };
        let ensure = |way| async move { ensure_topic(&raced(), &spec().on_existing(way)).await };
        assert_eq!(ensure(OnExisting::CreateOnly).await.unwrap_err().kind(), ErrorKind::TopicExists);
        assert_eq!(ensure(OnExisting::Validate).await.unwrap().spec, kept());
        assert_eq!(refused(&raced(), spec().replicas(2)).await.0, ErrorKind::TopicMismatch);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_is_refused_before_the_broker_is_asked() {
        let broker = Broker::default();
        assert_eq!(refused(&broker, spec().max_messages(1)).await.0, ErrorKind::Unsupported);
        assert_eq!(refused(&broker, spec().storage(Storage::Memory)).await.0, ErrorKind::Unsupported);
        assert_eq!(ensure_topic(&broker, &TopicSpec::new("a b")).await.unwrap_err().kind(), ErrorKind::InvalidName);
        assert!(broker.calls().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_broker_has_accepted_is_waited_for_and_no_longer_than_it_takes() {
        let away = || Err(Error::new(ErrorKind::UnknownTopic, "not here yet"));
        let slow = |settles, before: VecDeque<_>| Broker { settles, before: Mutex::new(before), ..Broker::default() };
        let second = Duration::from_secs(1);
        let broker = slow(second, [away(), Ok(kept().replicas(2)), Ok(kept().replicas(2))].into());
        assert_eq!(ensure_topic(&broker, &spec()).await.unwrap().spec, kept(), "a new one, until it is as asked");
        let broker = slow(Duration::ZERO, [away()].into());
        assert_eq!(refused(&broker, spec()).await.0, ErrorKind::UnknownTopic, "a broker that says when it is done");
        let broker = Broker { copies: Some(1), settles: second, ..Broker::default() };
        let begun = Instant::now();
        assert_eq!(refused(&broker, spec().replicas(3)).await.0, ErrorKind::TopicMismatch);
        assert!(begun.elapsed() >= second && begun.elapsed() < 2 * second, "{:?}", begun.elapsed());
        let broker = Broker { settles: second, ..Broker::with(kept()) };
        *broker.before.lock().unwrap() = [Ok(kept().replicas(2)), Ok(kept().replicas(2))].into();
        assert_eq!(ensure_topic(&broker, &spec()).await.unwrap().spec, kept(), "one that somebody else just made");
        let slower = Broker { settles: 9 * JUST_MADE, ..Broker::with(kept()) };
        let begun = Instant::now();
        assert_eq!(refused(&slower, spec().replicas(2)).await.0, ErrorKind::TopicMismatch);
        assert!(begun.elapsed() < 2 * JUST_MADE, "two that disagree find out soon: {:?}", begun.elapsed());
        *broker.before.lock().unwrap() = [Ok(kept()), Ok(kept()), Ok(kept())].into();
        let changed = ensure_topic(&broker, &spec().replicas(3).on_existing(OnExisting::CreateOrUpdate)).await.unwrap();
        assert_eq!(changed.spec.replicas, 3);
        *broker.before.lock().unwrap() = [Ok(kept()), Err(Error::new(ErrorKind::PermissionDenied, "no"))].into();
        let begun = Instant::now();
        let denied = refused(&broker, spec().on_existing(OnExisting::CreateOrUpdate)).await;
        assert_eq!(
            (denied.0, begun.elapsed()),
            (ErrorKind::PermissionDenied, Duration::ZERO),
            "no difference to wait for"
        );
    }
}

//! Topics: made, compared and changed, the same on every backend.
//!
//! Invariants: what a topic is asked to be is compared with what the broker says it is, also right after its creation, since
//! brokers take what they do not know in silence. Asking never makes a topic.

use std::time::Duration;

use tokio::time::Instant;

use super::{Backend, Capabilities, TopicDescription};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::unsupported;
use crate::topic::{OnExisting, Storage, Topic, TopicSpec};

/// How soon it is looked again for what a broker has accepted and not done yet.
const AGAIN: Duration = Duration::from_millis(50);

/// How long a topic that differs is looked at again, where the broker takes its time: somebody else may just have made it.
const JUST_MADE: Duration = Duration::from_secs(2);

/// Makes a topic be as `spec` says, by the spec's way to treat an existing one. Idempotent. When it returns, the topic can be
/// described, written and read.
///
/// Cancel safe: what was begun can be made whole by another call.
///
/// # Errors
/// `InvalidName` or `InvalidConfig` for a spec that cannot be; `Unsupported` for what the backend has not; `TopicExists` with
/// [`OnExisting::CreateOnly`]; `TopicMismatch` naming the setting and both values; and what the broker says.
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
                return settled(settles, Result::is_err, || agreed(backend, topic, &asked)).await;
            }
            // Somebody was faster.
            settled(settles, Result::is_err, || backend.describe_topic(topic)).await?
        }
        found => found?,
    };
    match spec.on_existing {
        OnExisting::CreateOnly => Err(Error::new(ErrorKind::TopicExists, "the topic exists already")),
        OnExisting::LeaveAlone => Ok(found),
        OnExisting::Validate => match compared(found, &asked) {
            Err(_) if !settles.is_zero() => {
                settled(settles.min(JUST_MADE), differs, || agreed(backend, topic, &asked)).await
            }
            compared => compared,
        },
        OnExisting::CreateOrUpdate => {
            found.spec.agrees_in_fixed(&asked)?;
            backend.update_topic(&asked).await?;
            settled(settles, differs, || agreed(backend, topic, &asked)).await
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

/// Looks until what is seen is the last word, for at most so long: brokers accept a change before all of them act by it.
/// Gives what was seen last. It looks once at least, and begins a look only within the time.
///
/// Cancel safe, as far as `look` is.
pub async fn settled<T, F: Future<Output = Result<T>>>(
    patience: Duration,
    again: impl Fn(&Result<T>) -> bool,
    look: impl Fn() -> F,
) -> Result<T> {
    let until = Instant::now() + patience;
    loop {
        let seen = look().await;
        if !again(&seen) || Instant::now() >= until {
            return seen;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn differs<T>(seen: &Result<T>) -> bool {
    seen.as_ref().is_err_and(|error| error.kind() == ErrorKind::TopicMismatch)
}

#[cfg(test)]
mod tests;

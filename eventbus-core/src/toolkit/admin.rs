//! Administration at a broker: the bus's names among the broker's, and removals that take their time.

use std::str::FromStr;
use std::time::Duration;

use crate::model::{Error, ErrorKind, Result};
use crate::runtime::poll_until;

/// Returns the topics, or groups, among a broker's names: those with this prefix whose rest is a valid name, sorted.
///
/// ```
/// use eventbus_core::Topic;
/// use eventbus_core::toolkit::names_under;
///
/// let topics: Vec<Topic> = names_under("shop.", ["shop.orders", "orders", "shop.a b", "shop.bills"]);
/// assert_eq!(topics, ["bills".parse()?, "orders".parse()?]);
/// # Ok::<(), eventbus_core::Error>(())
/// ```
#[must_use]
pub fn names_under<'a, T: FromStr + Ord>(prefix: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<T> {
    let mut found: Vec<T> = names.into_iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
    found.sort();
    found
}

fn is_unknown(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnknownTopic | ErrorKind::UnknownGroup)
}

/// Waits until a removed topic or group is gone (`UnknownTopic` or `UnknownGroup`), for at most `patience`: brokers
/// accept a deletion before all of them act by it.
///
/// Cancel safe, as far as `look` is.
///
/// # Errors
/// The last error that `look` saw, where it was another one; `Unavailable` where the topic or group is still there.
pub async fn wait_until_gone<T, F: Future<Output = Result<T>>>(patience: Duration, look: impl Fn() -> F) -> Result<()> {
    match poll_until(patience, |seen| !seen.as_ref().is_err_and(is_unknown), look).await {
        Err(error) if is_unknown(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Error::new(ErrorKind::Unavailable, "the brokers have not all heard of the deletion")),
    }
}

/// Removes these one after the other. One that is gone already is no error; one that has members, or cannot be reached,
/// is tried again for at most `patience`. Cancel safe, as far as `remove` is: another call can remove the rest.
///
/// # Errors
/// The last error of the first one that could not be removed; the names after it are left.
pub async fn remove_each<N: Clone, F: Future<Output = Result<()>>>(
    patience: Duration,
    names: impl IntoIterator<Item = N>,
    remove: impl Fn(N) -> F,
) -> Result<()> {
    let passes = |error: &Error| error.kind() == ErrorKind::GroupActive || error.is_retryable();
    for name in names {
        match poll_until(patience, |removed| removed.as_ref().is_err_and(passes), || remove(name.clone())).await {
            Err(error) if !is_unknown(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;
    use crate::model::Group;

    const SECOND: Duration = Duration::from_secs(1);

    fn error<T>(kind: ErrorKind) -> Result<T> {
        Err(Error::new(kind, "so"))
    }

    #[test]
    fn only_names_under_the_prefix_are_ours() {
        let groups: Vec<Group> = names_under("p.", ["p.b", "p.", "q.a", "p.a", "p.a/b"]);
        assert_eq!(groups, ["a".parse().unwrap(), "b".parse().unwrap()]);
        assert_eq!(names_under::<Group>("", ["x"]).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_removed_is_waited_for_and_not_for_ever() {
        let looks = Cell::new(0);
        let look = |kinds: &'static [Option<ErrorKind>]| {
            looks.set(looks.get() + 1);
            let seen = kinds.get(looks.get() - 1).copied().unwrap_or(Some(ErrorKind::UnknownTopic));
            std::future::ready(seen.map_or(Ok(()), error))
        };
        wait_until_gone(SECOND, || look(&[None, Some(ErrorKind::Unavailable)])).await.unwrap();
        assert_eq!(looks.get(), 3);
        let begun = Instant::now();
        let there = wait_until_gone(SECOND, || std::future::ready(Ok(()))).await.unwrap_err();
        assert_eq!((there.kind(), begun.elapsed() >= SECOND), (ErrorKind::Unavailable, true));
        let denied =
            wait_until_gone(Duration::ZERO, || std::future::ready(error::<()>(ErrorKind::PermissionDenied))).await;
        assert_eq!(denied.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_use_is_tried_again_and_what_is_gone_is_passed_over() {
        let asked = RefCell::new(Vec::new());
        let remove = |name| {
            asked.borrow_mut().push(name);
            let again = asked.borrow().iter().filter(|asked| **asked == name).count() > 1;
            std::future::ready(match name {
                "gone" => error(ErrorKind::UnknownGroup),
                "active" if !again => error(ErrorKind::GroupActive),
                "denied" => error(ErrorKind::PermissionDenied),
                _ => Ok(()),
            })
        };
        remove_each(SECOND, ["a", "gone", "active"], remove).await.unwrap();
        assert_eq!(asked.take(), ["a", "gone", "active", "active"]);
        let failed = remove_each(SECOND, ["denied", "a"], remove).await.unwrap_err();
        assert_eq!((failed.kind(), asked.take()), (ErrorKind::PermissionDenied, vec!["denied"]));
        assert!(remove_each(Duration::ZERO, ["active"], remove).await.is_err(), "it is tried once at least");
    }
}

//! Headers of a record as they were read, whoever wrote them (S2, S6).
//!
//! Invariants:
//! * no header ends the thread that reads it. Names are bytes in Kafka, and the client panics on one that is not UTF-8:
//!   the panic is caught around the one accessor. Such a header stands under a name that no envelope can hold, so it is
//!   left out where the record is decoded, as a value is that is not text;
//! * a record with more headers than [`MOST`] costs no more than its payload: its headers are not copied, and it is
//!   undecodable.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use rdkafka::message::{Header, Headers};

/// The most headers of a record that is decoded.
pub(crate) const MOST: usize = 4_096;

/// The name in the place of one that is not UTF-8.
pub(crate) const NOT_UTF8: &str = "\u{fffd}";

/// Returns the headers in their order.
pub(crate) fn all<H: Headers>(headers: &H) -> impl Iterator<Item = (&str, &[u8])> {
    (0..headers.count()).map(|index| header(headers, index))
}

fn header<H: Headers>(headers: &H, index: usize) -> (&str, &[u8]) {
    match quietly(|| headers.try_get(index)) {
        Some(Some(Header { key, value })) => (key, value.unwrap_or_default()),
        _ => (NOT_UTF8, &[]),
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls an accessor that may panic; `None` where it did. The process's panic hook is not called, since a record that
/// somebody else wrote is no defect of this process.
pub(crate) fn quietly<T>(access: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                others(panic);
            }
        }));
    });
    QUIET.set(true);
    let accessed = catch_unwind(AssertUnwindSafe(access));
    QUIET.set(false);
    accessed.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers whose accessor panics as the client's does.
    type ForeignHeader = Option<(&'static str, Option<&'static [u8]>)>;

    struct Foreign(Vec<ForeignHeader>);

    impl Headers for Foreign {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn try_get(&self, index: usize) -> Option<Header<'_, &[u8]>> {
            let (key, value) = self.0[index].expect("not UTF-8");
            Some(Header { key, value })
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_leaves_its_neighbours_as_they_are() {
        let foreign = Foreign(vec![Some(("a", Some(b"1"))), None, Some(("b", None)), None]);
        let read: Vec<_> = all(&foreign).collect();
        let none: &[u8] = &[];
        assert_eq!(read, [("a", b"1".as_slice()), (NOT_UTF8, none), ("b", none), (NOT_UTF8, none)]);
    }

    #[test]
    fn a_panic_elsewhere_is_still_said() {
        assert_eq!(quietly(|| panic!("not said")), None::<()>);
        assert!(!QUIET.get());
    }
}

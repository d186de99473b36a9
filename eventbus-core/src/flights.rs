//! Submissions in flight: what a backend keeps of each until it is told its fate (P2).
//!
//! Invariants:
//! * every submission is told its fate once: by whoever [ends](Flights::end) it, by age, or with all others;
//! * an answer counts only for the submission that it was asked for: a place in the table that is used again has another
//!   serial number, which is part of the [`FlightId`];
//! * no lock is held while a ticket is told: it may submit from inside.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::backend::Fate;
use crate::error::{Error, ErrorKind};
use crate::sync::{Mutex, MutexGuard};
use crate::ticket::Ticket;

/// Names one submission, also in an answer's address: written as two hexadecimal numbers with `-` between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightId {
    index: usize,
    serial: u64,
}

impl FlightId {
    /// Reads what [`Display`](fmt::Display) writes; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (index, serial) = text.split_once('-')?;
        Some(Self { index: usize::from_str_radix(index, 16).ok()?, serial: u64::from_str_radix(serial, 16).ok()? })
    }
}

impl fmt::Display for FlightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.index, self.serial)
    }
}

/// The submissions of a producer that are on their way, with what the backend knows of each.
///
/// ```
/// use eventbus_core::backend::Fate;
/// use eventbus_core::flights::{FlightId, Flights};
/// use eventbus_core::{Position, Ticket};
///
/// fn submit(flights: &Flights<&'static str>, ticket: Ticket) -> Option<String> {
///     match flights.begin(ticket, "partition 3") {
///         Ok(id) => Some(format!("answers.{id}")),
///         Err((ticket, fate)) => {
///             ticket.tell(fate);
///             None
///         }
///     }
/// }
///
/// fn answered(flights: &Flights<&'static str>, address: &str, position: Position) {
///     let id = address.strip_prefix("answers.").and_then(FlightId::parse);
///     if let Some((ticket, _)) = id.and_then(|id| flights.end(id)) {
///         ticket.tell(Fate::Stored { position, duplicate: false });
///     }
/// }
/// ```
pub struct Flights<T> {
    table: Mutex<Table<T>>,
}

struct Table<T> {
    flights: Slab<Flight<T>>,
    serials: u64,
    /// In order of sending; entries of what has ended are passed over.
    by_age: VecDeque<(Instant, FlightId)>,
    closed: bool,
}

struct Flight<T> {
    serial: u64,
    ticket: Ticket,
    about: T,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { table: Mutex::new(Table { flights: Slab::new(), serials: 0, by_age: VecDeque::new(), closed: false }) }
    }
}

impl<T> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("in_flight", &self.table().flights.len()).finish_non_exhaustive()
    }
}

impl<T> Flights<T> {
    fn table(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock()
    }

    /// Begins one, at the age of zero.
    ///
    /// # Errors
    /// Ticket and fate, to be told, after [`close`](Self::close).
    pub fn begin(&self, ticket: Ticket, about: T) -> Result<FlightId, (Ticket, Fate)> {
        let mut table = self.table();
        if table.closed {
            return Err((ticket, Fate::NotStored(Error::new(ErrorKind::Closed, "the backend is closed"))));
        }
        table.serials += 1;
        let serial = table.serials;
        let id = FlightId { index: table.flights.insert(Flight { serial, ticket, about }), serial };
        table.by_age.push_back((Instant::now(), id));
        Ok(id)
    }

    /// Takes one out, to be told; `None` where it has ended already.
    pub fn end(&self, id: FlightId) -> Option<(Ticket, T)> {
        self.table().take(id).map(|flight| (flight.ticket, flight.about))
    }

    /// Those that fit, with what is to be known of them.
    pub fn find<K>(&self, fits: impl Fn(&T) -> Option<K>) -> Vec<(FlightId, K)> {
        let table = self.table();
        let found =
            table.flights.iter().map(|(index, flight)| (FlightId { index, serial: flight.serial }, &flight.about));
        found.filter_map(|(id, about)| fits(about).map(|known| (id, known))).collect()
    }

    /// Tells those that are this old that nobody knows what became of them. To be called again and again.
    pub fn end_older(&self, age: Duration) {
        let mut late = Vec::new();
        {
            let mut table = self.table();
            while let Some((sent, id)) = table.by_age.front().copied() {
                if table.holds(id) && sent.elapsed() < age {
                    break;
                }
                table.by_age.pop_front();
                late.extend(table.take(id));
            }
        }
        tell_unknown(late, "no acknowledgement came in time");
    }

    /// Tells all that nobody knows what became of them, and why.
    pub fn end_all(&self, why: &'static str) {
        let flights = {
            let mut table = self.table();
            table.by_age.clear();
            std::mem::take(&mut table.flights)
        };
        tell_unknown(flights.into_iter().map(|(_, flight)| flight), why);
    }

    /// As [`end_all`](Self::end_all), and none begins any more.
    pub fn close(&self, why: &'static str) {
        self.table().closed = true;
        self.end_all(why);
    }
}

impl<T> Table<T> {
    fn holds(&self, id: FlightId) -> bool {
        self.flights.get(id.index).is_some_and(|flight| flight.serial == id.serial)
    }

    fn take(&mut self, id: FlightId) -> Option<Flight<T>> {
        self.holds(id).then(|| self.flights.remove(id.index))
    }
}

fn tell_unknown<T>(flights: impl IntoIterator<Item = Flight<T>>, why: &'static str) {
    let error = Error::new(ErrorKind::Unknown, why);
    flights.into_iter().for_each(|flight| flight.ticket.tell(Fate::Unknown(error.clone())));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::position::Position;
    use crate::ticket::TicketSink;

    /// Fates in the order in which they were told; where it says so, submits from inside.
    #[derive(Default)]
    struct Told {
        fates: Mutex<Vec<(u64, Fate)>>,
        flights: Flights<u32>,
        again: bool,
    }

    impl TicketSink for Told {
        fn told(self: Arc<Self>, id: u64, fate: Fate) {
            self.fates.lock().push((id, fate));
            if self.again && id < 100 {
                begin(&self, id + 100).unwrap_or_else(|(ticket, fate)| {
                    ticket.tell(fate);
                    FlightId { index: 0, serial: 0 }
                });
            }
        }

        fn stands(&self, _: u64) -> bool {
            true
        }
    }

    fn begin(told: &Arc<Told>, id: u64) -> Result<FlightId, (Ticket, Fate)> {
        told.flights.begin(Ticket::new(told.clone(), id), id as u32)
    }

    fn ids(told: &Told) -> Vec<u64> {
        told.fates.lock().iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn an_answer_to_an_earlier_use_of_a_place_ends_nothing() {
        let told = Arc::new(Told::default());
        let first = begin(&told, 1).unwrap();
        assert_eq!(FlightId::parse(&first.to_string()), Some(first));
        let stored = Fate::Stored { position: Position::ZERO, duplicate: false };
        told.flights.end(first).unwrap().0.tell(stored);
        let second = begin(&told, 2).unwrap();
        assert_eq!((first.index, ids(&told)), (second.index, vec![1]));
        assert!(told.flights.end(first).is_none());
        assert_eq!(told.flights.find(|about| (*about == 2).then_some("it")), [(second, "it")]);
        for text in ["", "-", "1", "x-1", "1-x", "1-1-1"] {
            assert_eq!(FlightId::parse(text), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_gets_too_old_is_unknown_in_order_of_its_age() {
        let told = Arc::new(Told::default());
        let answered = begin(&told, 1).unwrap();
        begin(&told, 2).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        begin(&told, 3).unwrap();
        drop(told.flights.end(answered));
        told.fates.lock().clear();
        told.flights.end_older(Duration::from_secs(1));
        assert_eq!(ids(&told), [2]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        told.flights.end_older(Duration::from_secs(1));
        assert_eq!(ids(&told), [2, 3]);
        assert!(told.fates.lock().iter().all(|(_, fate)| matches!(fate, Fate::Unknown(_))));
    }

    #[test]
    fn all_are_told_at_the_end_also_where_telling_submits_again_and_none_begins_after_it() {
        let told = Arc::new(Told { again: true, ..Told::default() });
        begin(&told, 1).unwrap();
        begin(&told, 2).unwrap();
        told.flights.end_all("the connection was lost");
        assert_eq!(ids(&told), [1, 2], "what was submitted from inside is on its way");
        told.flights.close("the end");
        let mut all = ids(&told);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 101, 102]);
        let (ticket, fate) = begin(&told, 3).unwrap_err();
        assert!(matches!(&fate, Fate::NotStored(error) if error.kind() == ErrorKind::Closed));
        ticket.tell(fate);
    }
}

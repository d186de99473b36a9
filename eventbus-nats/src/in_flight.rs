//! Submissions in flight: what the producer keeps of each until its fate is told (P2).
//!
//! Invariants:
//! * every submission is told its fate once: by the caller that [ends](InFlight::end) it, by the answer to a question,
//!   by age, or with all others;
//! * an answer counts only for its own submission: a place in the table that is used again has another serial number,
//!   which is part of the [`FlightId`]; only a [late](crate::late) *stored* counts for every send of its stamp;
//! * no lock is held while a ticket is told: the ticket may submit from inside.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use eventbus_core::backend::{Fate, Ticket};
use eventbus_core::{Error, ErrorKind, Stamp};

use crate::late::{Late, LateAnswers};

/// Interval at which the age of submissions is checked.
const SWEEP: Duration = Duration::from_millis(100);

/// The id of one submission, also in an answer's address: two hexadecimal numbers with `-` between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlightId {
    index: usize,
    serial: u64,
}

impl FlightId {
    /// Reads what [`Display`](fmt::Display) writes; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (index, serial) = text.split_once('-')?;
        Some(Self { index: usize::from_str_radix(index, 16).ok()?, serial: u64::from_str_radix(serial, 16).ok()? })
    }
}

impl fmt::Display for FlightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.index, self.serial)
    }
}

/// The submissions of a producer that are on their way; `T` is what the producer knows of each.
pub(crate) struct InFlight<T> {
    table: Mutex<Table<T>>,
}

struct Table<T> {
    flights: Slab<Flight<T>>,
    serials: u64,
    /// Flights in the order of sending; entries of ended ones are passed over.
    by_age: VecDeque<(Instant, FlightId)>,
    /// Tickets set aside, by the question that they wait for.
    aside: HashMap<String, Vec<Ticket>>,
    late: LateAnswers<FlightId>,
    closed: bool,
}

struct Flight<T> {
    serial: u64,
    stamp: Stamp,
    ticket: Ticket,
    about: T,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        let (flights, by_age, aside) = (Slab::new(), VecDeque::new(), HashMap::new());
        let late = LateAnswers::default();
        Self { table: Mutex::new(Table { flights, serials: 0, by_age, aside, late, closed: false }) }
    }
}

impl<T> fmt::Debug for InFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("in_flight", &self.table().flights.len()).finish_non_exhaustive()
    }
}

impl<T> InFlight<T> {
    fn table(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a flight, at the age of zero.
    ///
    /// # Errors
    /// After [`close`](Self::close), or where a late answer says that the stamp is stored: the ticket, and the fate to
    /// tell it.
    pub(crate) fn begin(&self, ticket: Ticket, stamp: Stamp, about: T) -> Result<FlightId, (Ticket, Fate)> {
        let mut table = self.table();
        if table.closed {
            return Err((ticket, Fate::NotStored(Error::new(ErrorKind::Closed, "the backend is closed"))));
        }
        table.serials += 1;
        let serial = table.serials;
        let index = table.flights.vacant_key();
        if let Some(stored) = table.late.sends(FlightId { index, serial }, stamp) {
            return Err((ticket, stored));
        }
        table.flights.insert(Flight { serial, stamp, ticket, about });
        let id = FlightId { index, serial };
        table.by_age.push_back((Instant::now(), id));
        Ok(id)
    }

    /// Takes a flight out, for the caller to tell; `None` if it has ended already.
    pub(crate) fn end(&self, id: FlightId) -> Option<(Ticket, T)> {
        let mut table = self.table();
        let flight = table.take(id)?;
        table.late.ended(flight.stamp);
        Some((flight.ticket, flight.about))
    }

    /// Takes the answer *stored* to a flight that was given up. Returns the ticket of the flight of the same stamp that
    /// is under way now, for the caller to tell; the stamp's next flight is told it otherwise.
    pub(crate) fn came_late(&self, id: FlightId, stored: &Fate) -> Option<Ticket> {
        let mut table = self.table();
        let Late::Confirms(under_way) = table.late.came(id, stored) else { return None };
        let flight = table.take(under_way)?;
        table.late.ended(flight.stamp);
        Some(flight.ticket)
    }

    /// Finds the flights that fit, with what `fits` returns for each.
    pub(crate) fn find<K>(&self, fits: impl Fn(&T) -> Option<K>) -> Vec<(FlightId, K)> {
        let table = self.table();
        let found =
            table.flights.iter().map(|(index, flight)| (FlightId { index, serial: flight.serial }, &flight.about));
        found.filter_map(|(id, about)| fits(about).map(|known| (id, known))).collect()
    }

    /// Asks for the fate of a flight that was taken out: sets its ticket aside, until the question about `what` is
    /// answered. One question serves all tickets that come meanwhile. To be called on a runtime.
    pub(crate) fn ask<F>(self: &Arc<Self>, what: &str, ticket: Ticket, question: impl FnOnce() -> F)
    where
        F: Future<Output = Fate> + Send + 'static,
        T: Send + 'static,
    {
        if self.set_aside(what, ticket) {
            let (flights, what, answer) = (Arc::clone(self), what.to_owned(), question());
            tokio::spawn(async move { flights.tell_aside(&what, &answer.await) });
        }
    }

    /// Sets a ticket aside. `true` for the first of its question, whose caller is to ask.
    fn set_aside(&self, what: &str, ticket: Ticket) -> bool {
        let mut table = self.table();
        let waiting = table.aside.entry(what.to_owned()).or_default();
        waiting.push(ticket);
        waiting.len() == 1
    }

    /// Tells the answer about `what` to all tickets that were set aside for it.
    fn tell_aside(&self, what: &str, fate: &Fate) {
        let waiting = self.table().aside.remove(what).unwrap_or_default();
        waiting.into_iter().for_each(|ticket| ticket.tell(fate.clone()));
    }

    /// Ends flights that get older than `age`, again and again, until nobody else holds the table. To be spawned;
    /// cancel safe.
    pub(crate) async fn watch(flights: Weak<Self>, age: Duration) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(flights) = flights.upgrade() else { return };
            flights.end_older(age);
        }
    }

    /// Ends the flights of this age or older: their fate is unknown.
    fn end_older(&self, age: Duration) {
        let mut late = Vec::new();
        {
            let mut table = self.table();
            while let Some((sent, id)) = table.by_age.front().copied() {
                if table.holds(id) && sent.elapsed() < age {
                    break;
                }
                table.by_age.pop_front();
                late.extend(table.give_up(id));
            }
        }
        tell_unknown(late.into_iter().map(|flight| flight.ticket), "no acknowledgement came in time");
    }

    /// Ends all flights, also those set aside: their fate is unknown, and `why` says the reason.
    pub(crate) fn end_all(&self, why: &'static str) {
        let (flights, aside) = {
            let mut table = self.table();
            table.by_age.clear();
            (std::mem::take(&mut table.flights), std::mem::take(&mut table.aside))
        };
        for (index, flight) in &flights {
            self.table().late.given_up(FlightId { index, serial: flight.serial }, flight.stamp);
        }
        let flights = flights.into_iter().map(|(_, flight)| flight.ticket);
        tell_unknown(flights.chain(aside.into_values().flatten()), why);
    }

    /// Ends all as [`end_all`](Self::end_all), and lets none begin any more.
    pub(crate) fn close(&self, why: &'static str) {
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

    /// Takes out a flight whose answer did not come in time.
    fn give_up(&mut self, id: FlightId) -> Option<Flight<T>> {
        let flight = self.take(id)?;
        self.late.given_up(id, flight.stamp);
        Some(flight)
    }
}

fn tell_unknown(tickets: impl Iterator<Item = Ticket>, why: &'static str) {
    let error = Error::new(ErrorKind::Unknown, why);
    tickets.for_each(|ticket| ticket.tell(Fate::Unknown(error.clone())));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use eventbus_core::Position;
    use eventbus_core::backend::TicketSink;

    /// A sink of fates in the order in which they were told. With `again`, it submits from inside.
    #[derive(Default)]
    struct Told {
        fates: Mutex<Vec<(u64, Fate)>>,
        flights: InFlight<u32>,
        again: bool,
    }

    impl TicketSink for Told {
        fn told(self: Arc<Self>, id: u64, fate: Fate) {
            self.fates.lock().unwrap().push((id, fate));
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

    fn stamp(number: u64) -> Stamp {
        Stamp::new(eventbus_core::ProducerId::new(1), number)
    }

    fn begin(told: &Arc<Told>, id: u64) -> Result<FlightId, (Ticket, Fate)> {
        told.flights.begin(Ticket::new(told.clone(), id), stamp(id), id as u32)
    }

    fn ids(told: &Told) -> Vec<u64> {
        ids_of(&told.fates.lock().unwrap())
    }

    fn ids_of(fates: &[(u64, Fate)]) -> Vec<u64> {
        fates.iter().map(|(id, _)| *id).collect()
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
        told.fates.lock().unwrap().clear();
        told.flights.end_older(Duration::from_secs(1));
        assert_eq!(ids(&told), [2]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        told.flights.end_older(Duration::from_secs(1));
        assert_eq!(ids(&told), [2, 3]);
        assert!(told.fates.lock().unwrap().iter().all(|(_, fate)| matches!(fate, Fate::Unknown(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_late_confirms_whatever_send_of_its_stamp_is_under_way() {
        let told = Arc::new(Told::default());
        let again = |id| told.flights.begin(Ticket::new(told.clone(), id), stamp(9), 0);
        let stored = Fate::Stored { position: Position::new(4), duplicate: false };
        let first = again(1).unwrap();
        told.flights.end_older(Duration::ZERO);
        let second = again(2).unwrap();
        told.flights.came_late(first, &stored).unwrap().tell(stored.clone());
        assert!(told.flights.end(second).is_none());
        let third = again(3).unwrap();
        told.flights.end_all("the connection was lost");
        assert!(told.flights.came_late(third, &stored).is_none(), "nothing of it is under way");
        let (ticket, fate) = again(4).unwrap_err();
        ticket.tell(fate);
        let fates = told.fates.lock().unwrap();
        let stored: Vec<_> =
            fates.iter().filter(|(_, fate)| matches!(fate, Fate::Stored { .. })).map(|(id, _)| *id).collect();
        assert_eq!((ids_of(&fates), stored), (vec![1, 2, 3, 4], vec![2, 4]));
    }

    #[tokio::test]
    async fn a_question_is_asked_once_for_all_that_wait_for_its_answer() {
        let (told, flights) = (Arc::new(Told::default()), Arc::new(InFlight::<u32>::default()));
        let asked = Arc::new(Mutex::new(0));
        let (answer, answers) = tokio::sync::watch::channel(());
        let ask = |id| {
            flights.ask("a", Ticket::new(told.clone(), id), || {
                *asked.lock().unwrap() += 1;
                let mut answers = answers.clone();
                async move {
                    let _ = answers.changed().await;
                    Fate::Stored { position: Position::ZERO, duplicate: false }
                }
            });
        };
        ask(1);
        ask(2);
        assert_eq!((*asked.lock().unwrap(), ids(&told)), (1, vec![]));
        answer.send(()).unwrap();
        while ids(&told).len() < 2 {
            tokio::task::yield_now().await;
        }
        ask(3);
        assert_eq!((*asked.lock().unwrap(), ids(&told)), (2, vec![1, 2]));
    }

    #[test]
    fn one_question_serves_all_that_were_set_aside_for_it_and_what_is_never_answered_ends_with_all() {
        let told = Arc::new(Told::default());
        let aside = |id, what| told.flights.set_aside(what, Ticket::new(told.clone(), id));
        assert_eq!([aside(1, "a"), aside(2, "a"), aside(3, "b")], [true, false, true]);
        let stored = Fate::Stored { position: Position::ZERO, duplicate: false };
        told.flights.tell_aside("a", &stored);
        assert_eq!(ids(&told), [1, 2]);
        assert!(aside(4, "a"), "it is asked again");
        told.flights.end_all("the connection was lost");
        let mut all = ids(&told);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn ages_are_watched_as_long_as_somebody_holds_the_table() {
        let flights = Arc::new(InFlight::<u32>::default());
        let told = Arc::new(Told::default());
        let watching = tokio::spawn(InFlight::watch(Arc::downgrade(&flights), Duration::from_secs(1)));
        assert!(flights.begin(Ticket::new(told.clone(), 1), stamp(1), 1).is_ok());
        tokio::time::sleep(Duration::from_millis(950)).await;
        assert!(ids(&told).is_empty());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(ids(&told), [1]);
        drop(flights);
        watching.await.unwrap();
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

//! Submissions on their way to the log and their fates on the way back.
//!
//! Without a wait and without a fault a submission is stored, and its ticket told, inside the call. Otherwise it is a
//! [`Flight`]. Pipelined flights of a partition keep these invariants, whatever fault strikes:
//!
//! * flights of a partition land in the order of their submission, and
//! * their fates are told in that order, so that a cut finds no later one confirmed before an earlier one, and
//! * *no hole*: from the moment that a flight's fate is decided to be anything but stored until its ticket has been
//!   told so, every flight submitted behind it is doomed, which is to say not stored.

use std::time::Duration;

use eventbus_core::backend::{Fate, Outbound, Pipelining, Ticket};
use eventbus_core::{Error, ErrorKind};

use super::MemoryState;
use crate::faults::{FaultKind, FaultPlace, OnCut, SubmitFault};
use crate::in_flight::{Flight, PipeKey, Stage};
use crate::step::{Step, Told};
use crate::timers::Timer;
use crate::topic::unknown_topic;

impl MemoryState {
    /// Takes a submission. A fate that is decided at once is returned, to be told after the lock.
    pub(crate) fn submit(
        &mut self,
        connection: u64,
        record: Outbound,
        ticket: Ticket,
        step: &mut Step,
    ) -> Option<(Ticket, Fate)> {
        if let Some(fate) = self.not_sent(connection, &record) {
            return Some((ticket, fate));
        }
        let pipe = (self.config.pipelining == Pipelining::PerPartition).then(|| PipeKey {
            connection,
            topic: record.topic.clone(),
            partition: record.partition,
        });
        if pipe.is_some() && !ticket.stands() {
            return Some((ticket, Fate::NotStored(behind_a_failure(&record))));
        }
        let fault = self.fault_on_submit(connection, &record, step);
        let latency = &self.config.latency;
        let at_once = fault.is_none()
            && latency.submit.is_none()
            && latency.answer.is_none()
            && !self.connections.is_frozen(connection)
            && pipe.as_ref().is_none_or(|pipe| !self.pipes.contains(pipe));
        if at_once {
            return Some((ticket, self.store(record, step)));
        }
        self.depart(connection, record, ticket, fault, pipe, step);
        None
    }

    fn fault_on_submit(&mut self, connection: u64, record: &Outbound, step: &mut Step) -> Option<SubmitFault> {
        if self.armed.submits.is_empty() {
            return None;
        }
        let place = FaultPlace::record(connection, record);
        let fault = self.armed.submits.strike(&place)?;
        let kind = match fault {
            SubmitFault::Drop => FaultKind::Dropped,
            SubmitFault::Delay(_) => FaultKind::Delayed,
            SubmitFault::Refuse => FaultKind::Refused,
            SubmitFault::NotStored => FaultKind::NotStored,
            SubmitFault::LoseConfirmation => FaultKind::ConfirmationLost,
            SubmitFault::Hold => FaultKind::Held,
        };
        step.faults.push(kind.at(place));
        Some(fault)
    }

    /// The fate of a record that cannot be sent, as the link is down or the record too large.
    fn not_sent(&self, connection: u64, record: &Outbound) -> Option<Fate> {
        let about = |error: Error| error.with("topic", &record.topic).with("partition", record.partition);
        if let Err(error) = self.connections.link(connection) {
            let closed = error.kind() == ErrorKind::Closed;
            return Some(if closed { Fate::Refused(about(error)) } else { Fate::NotStored(about(error)) });
        }
        let most = self.config.max_record_bytes;
        let bytes = record.envelope.size();
        if bytes <= most {
            return None;
        }
        let message = format!("the record has {bytes} bytes, the broker takes {most}");
        Some(Fate::Refused(about(Error::new(ErrorKind::TooLarge, message))))
    }

    /// Appends to the log and wakes the members that wait for it.
    fn store(&mut self, record: Outbound, step: &mut Step) -> Fate {
        let (topic, partition) = (record.topic.clone(), record.partition);
        let Some(state) = self.topics.get_mut(&topic) else {
            return Fate::Refused(unknown_topic());
        };
        let fate = state.store(record, step);
        if let Fate::Stored { duplicate: false, .. } = fate {
            self.wake_readers(&topic, partition, step);
        }
        fate
    }

    fn depart(
        &mut self,
        connection: u64,
        record: Outbound,
        ticket: Ticket,
        fault: Option<SubmitFault>,
        pipe: Option<PipeKey>,
        step: &mut Step,
    ) {
        let id = self.fresh_id();
        let doomed = pipe.as_ref().is_some_and(|pipe| self.pipes.depart(pipe, id));
        let held = fault == Some(SubmitFault::Hold);
        let stage = if held { Stage::Held } else { Stage::Travelling };
        let (ticket, due) = (Some(ticket), step.now + self.config.answer_timeout);
        self.flights.insert(id, Flight { connection, record, ticket, stage, fault, pipe, doomed, due });
        if held {
            return self.timers.set(due, Timer::Answer(id));
        }
        let mut wait = self.config.latency.submit.draw(&*self.config.env);
        if let Some(SubmitFault::Delay(delay)) = fault {
            wait += delay;
        }
        if let Some(backlog) = self.connections.backlog(connection) {
            backlog.push(Timer::Arrive(id));
        } else if wait.is_zero() {
            self.arrived(id, step);
        } else {
            self.timers.set(step.now + wait, Timer::Arrive(id));
        }
    }

    pub(crate) fn arrived(&mut self, id: u64, step: &mut Step) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        match flight.pipe.clone() {
            None => self.land(id, step),
            Some(pipe) => {
                flight.stage = Stage::Waiting;
                self.advance(&pipe, step);
            }
        }
    }

    /// Lands the flights that have arrived at the head of a pipe.
    fn advance(&mut self, pipe: &PipeKey, step: &mut Step) {
        while let Some(head) = self.pipes.head(pipe)
            && self.flights.get(&head).is_some_and(|flight| matches!(flight.stage, Stage::Waiting))
        {
            self.land(head, step);
        }
    }

    fn land(&mut self, id: u64, step: &mut Step) {
        let Some(flight) = self.flights.get(&id) else { return };
        let (record, fault, timeout) = (flight.record.clone(), flight.fault, self.config.answer_timeout);
        let mut wait = self.config.latency.answer.draw(&*self.config.env);
        let fate = match fault {
            _ if flight.doomed => Fate::NotStored(behind_a_failure(&record)),
            Some(SubmitFault::Drop) => {
                wait = timeout;
                Fate::Unknown(no_answer())
            }
            Some(SubmitFault::Refuse) => {
                Fate::Refused(Error::new(ErrorKind::Refused, "injected: refused").with("topic", &record.topic))
            }
            Some(SubmitFault::NotStored) => {
                Fate::NotStored(Error::new(ErrorKind::Unavailable, "injected: not stored").with("topic", &record.topic))
            }
            Some(SubmitFault::LoseConfirmation) => {
                wait = timeout;
                match self.store(record, step) {
                    Fate::Stored { .. } => Fate::Unknown(no_answer()),
                    other => other,
                }
            }
            Some(SubmitFault::Delay(_) | SubmitFault::Hold) | None => self.store(record, step),
        };
        self.decide(id, fate, wait, step);
    }

    /// Decides a flight's fate, to be told after a wait.
    fn decide(&mut self, id: u64, fate: Fate, wait: Duration, step: &mut Step) {
        let stored = matches!(fate, Fate::Stored { .. });
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.stage = Stage::Answering(fate);
        flight.due = step.now + wait;
        if let Some(pipe) = flight.pipe.clone() {
            flight.due = self.pipes.land(&pipe, id, flight.due);
            if !stored {
                self.doom_behind(&pipe, id);
            }
        }
        let Some(due) = self.flights.get(&id).map(|flight| flight.due) else { return };
        if due <= step.now {
            self.answered(id, step);
        } else {
            self.timers.set(due, Timer::Answer(id));
        }
    }

    fn doom_behind(&mut self, key: &PipeKey, failed: u64) {
        if !self.pipes.contains(key) {
            return;
        }
        self.pipes.fail(key);
        for id in self.pipes.behind(key, failed) {
            if let Some(flight) = self.flights.get_mut(&id) {
                flight.doomed = true;
            }
        }
    }

    pub(crate) fn answered(&mut self, id: u64, step: &mut Step) {
        let Some(flight) = self.flights.get(&id) else { return };
        // A timer that is left over from a hold may find its flight under way again, with nothing to tell yet.
        let over = matches!(flight.stage, Stage::Held | Stage::Answering(_));
        if step.now < flight.due || flight.ticket.is_none() || !over {
            return;
        }
        let (connection, held) = (flight.connection, matches!(flight.stage, Stage::Held));
        if let Some(backlog) = self.connections.backlog(connection) {
            return backlog.push(Timer::Answer(id));
        }
        if held {
            return self.give_up_on_held(id, step);
        }
        if let Some(Flight { stage: Stage::Answering(fate), ticket: Some(ticket), pipe, .. }) = self.flights.remove(&id)
        {
            if let Some(pipe) = &pipe {
                self.pipes.leave(pipe, id, true);
            }
            let pipe = pipe.filter(|_| !matches!(fate, Fate::Stored { .. }));
            step.told.push(Told { ticket, fate, pipe });
        }
    }

    /// Tells the publisher of a held flight that its fate is unknown. In a pipe the flight can then never land (its
    /// producer has gone on to later numbers); otherwise it stays held.
    fn give_up_on_held(&mut self, id: u64, step: &mut Step) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let (ticket, pipe) = (flight.ticket.take(), flight.pipe.clone());
        if let Some(pipe) = &pipe {
            self.doom_behind(pipe, id);
            self.pipes.leave(pipe, id, false);
            self.flights.remove(&id);
        }
        if let Some(ticket) = ticket {
            step.told.push(Told { ticket, fate: Fate::Unknown(no_answer()), pipe: pipe.clone() });
        }
        if let Some(pipe) = pipe {
            self.advance(&pipe, step);
        }
    }

    /// Releases all held submissions, in the order of their making. Returns their number.
    pub(crate) fn release_held(&mut self, step: &mut Step) -> usize {
        let is_held = |(id, flight): (&u64, &Flight)| matches!(flight.stage, Stage::Held).then_some(*id);
        let held: Vec<u64> = self.flights.iter().filter_map(is_held).collect();
        for id in &held {
            if let Some(flight) = self.flights.get(id) {
                step.faults.push(FaultKind::Released.at(FaultPlace::record(flight.connection, &flight.record)));
                if flight.ticket.is_some() {
                    self.arrived(*id, step);
                } else if let Some(flight) = self.flights.remove(id) {
                    // The publisher was told long ago; the log takes the record, or knows it as a copy.
                    let _late = self.store(flight.record, step);
                }
            }
        }
        held.len()
    }

    /// Tells everything that a connection has outstanding as unknown. It is stored or lost as the fault says; in a pipe
    /// the stored records have no hole.
    pub(crate) fn cut_flights(&mut self, connection: u64, stored: OnCut, step: &mut Step) {
        let of = |(id, flight): (&u64, &Flight)| (flight.connection == connection).then_some(*id);
        let ids: Vec<u64> = self.flights.iter().filter_map(of).collect();
        let mut holes: Vec<PipeKey> = Vec::new();
        for id in ids {
            let Some(mut flight) = self.flights.remove(&id) else { continue };
            let flying = matches!(flight.stage, Stage::Travelling | Stage::Waiting);
            let doomed = flight.doomed || flight.pipe.as_ref().is_some_and(|pipe| holes.contains(pipe));
            let lost = matches!(flight.fault, Some(SubmitFault::Drop | SubmitFault::Refuse | SubmitFault::NotStored));
            if flying && !doomed && !lost && stored.draw(&*self.config.env) {
                let _unheard = self.store(flight.record.clone(), step);
            } else if let Some(pipe) = flight.pipe.clone().filter(|_| flying || matches!(flight.stage, Stage::Held)) {
                holes.push(pipe);
            }
            let Some(ticket) = flight.ticket.take() else {
                self.flights.insert(id, flight);
                continue;
            };
            self.tell_cut(id, ticket, &flight, step);
            if matches!(flight.stage, Stage::Held) && flight.pipe.is_none() {
                self.flights.insert(id, flight);
            }
        }
    }

    fn tell_cut(&mut self, id: u64, ticket: Ticket, flight: &Flight, step: &mut Step) {
        if let Some(key) = &flight.pipe {
            // A fate that was decided as other than stored counts in its pipe already.
            let counted = matches!(&flight.stage, Stage::Answering(fate) if !matches!(fate, Fate::Stored { .. }));
            let landed = matches!(&flight.stage, Stage::Answering(_));
            if !counted {
                self.pipes.fail(key);
            }
            self.pipes.leave(key, id, landed);
        }
        let error = Error::new(ErrorKind::Unknown, "the connection was cut before an answer came");
        step.told.push(Told { ticket, fate: Fate::Unknown(error), pipe: flight.pipe.clone() });
    }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Unknown, "no answer came in time")
}

fn behind_a_failure(record: &Outbound) -> Error {
    Error::new(ErrorKind::Unavailable, "an earlier record of the partition was not stored")
        .with("topic", &record.topic)
        .with("partition", record.partition)
}

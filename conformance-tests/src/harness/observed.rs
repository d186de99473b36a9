//! The observed backend: a layer that passes every call on and records what concerns the rules.
//!
//! Commits and claims are recorded with the finished-beyond set of their notes, and so are the sessions that claims
//! begin, and ownership lost. The first claim after an assignment begins a session by it. A later claim begins another
//! one elsewhere, which is a seek (the bus seeks by itself where a log was replaced).
//!
//! A process that was killed reaches nothing any more: its submissions vanish, its calls fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use eventbus_core::backend::{Backend, Commit, Fate, GroupEvent, Join, Membership, Outbound};
use eventbus_core::backend::{ForwardBackend, ForwardMember};
use eventbus_core::backend::{Ticket, TicketSink};
use eventbus_core::dead_letter::DeadLetter;
use eventbus_core::note::Note;
use eventbus_core::{Error, ErrorKind, Group, Position, Result, Stamp, Topic};

use super::process::{Elsewhere, Process, lock};
use crate::history::{self, Kind, Name, SessionCause};

/// A backend under observation.
#[derive(Debug)]
pub struct Observed {
    inner: Arc<dyn Backend>,
    process: Arc<Process>,
    /// Dead letters that were sent, by their stamps.
    letters: Mutex<BTreeMap<Stamp, LetterOf>>,
}

/// The record that a dead letter is about.
type LetterOf = (Topic, Group, u32, Position);

impl Observed {
    /// Puts the layer on a backend.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, process: Arc<Process>) -> Self {
        Self { inner, process, letters: Mutex::default() }
    }

    /// The backend below.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn Backend> {
        &self.inner
    }
}

fn alive(process: &Process) -> Result<()> {
    if process.is_alive() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Closed, "the process was killed"))
}

#[async_trait]
impl ForwardBackend for Observed {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn reach(&self) -> Result<&dyn Backend> {
        alive(&self.process)?;
        Ok(&*self.inner)
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        match self.reach() {
            Ok(inner) => match DeadLetter::read(&record.envelope) {
                Ok(letter) if record.topic.as_str().starts_with("dead-letter.") => {
                    let place = (letter.topic, letter.group, letter.partition, letter.position);
                    lock(&self.letters).insert(record.stamp, place.clone());
                    let witness = Witness { process: self.process.clone(), place, ticket: Mutex::new(Some(ticket)) };
                    inner.submit(record, Ticket::new(Arc::new(witness), 0));
                }
                _ => inner.submit(record, ticket),
            },
            // Nobody is left to hear of it.
            Err(error) => ticket.tell(Fate::Refused(error)),
        }
    }

    async fn find_stamp(
        &self,
        topic: &Topic,
        partition: u32,
        from: Position,
        stamp: Stamp,
    ) -> Result<Option<Position>> {
        self.process.saw("log read for a stamp");
        let found = self.reach()?.find_stamp(topic, partition, from, stamp).await;
        if let (Ok(Some(_)), Some((topic, group, partition, position))) = (&found, lock(&self.letters).get(&stamp)) {
            self.process.letter_stored(topic.as_str(), group.as_str(), *partition, position.get());
        }
        found
    }

    async fn join(&self, join: Join) -> Result<Arc<dyn Membership>> {
        let names = Names {
            topic: join.topic.spec.topic.as_str().into(),
            group: join.group.as_str().into(),
            member: join.member.as_str().into(),
        };
        // Before the call: an assignment may follow at once.
        self.process.note(Kind::MemberJoined { group: names.group.clone(), member: names.member.clone() });
        let inner = self.reach()?.join(join).await?;
        Ok(Arc::new(ObservedMember { inner, process: self.process.clone(), names, held: Mutex::default() }))
    }

    async fn close(&self) -> Result<()> {
        match self.reach() {
            Ok(inner) => inner.close().await,
            Err(_) => Ok(()),
        }
    }
}

/// A sink that sees a dead letter stored, whatever the bus makes of it.
struct Witness {
    process: Arc<Process>,
    place: LetterOf,
    ticket: Mutex<Option<Ticket>>,
}

impl TicketSink for Witness {
    fn told(self: Arc<Self>, _: u64, fate: Fate) {
        if matches!(fate, Fate::Stored { .. }) {
            let (topic, group, partition, position) = &self.place;
            self.process.letter_stored(topic.as_str(), group.as_str(), *partition, position.get());
        }
        let ticket = lock(&self.ticket).take();
        if let Some(ticket) = ticket {
            ticket.tell(fate);
        }
    }

    fn stands(&self, _: u64) -> bool {
        lock(&self.ticket).as_ref().is_some_and(Ticket::stands)
    }
}

#[derive(Debug)]
struct Names {
    topic: Name,
    group: Name,
    member: Name,
}

/// The state of an assigned partition.
#[derive(Debug, Default)]
struct Held {
    /// Whether no claim has been confirmed since the assignment.
    fresh: bool,
    /// The group's progress as it was assigned, or stored since.
    progress: Option<Progress>,
    /// Whether its start position was recorded.
    begun: bool,
    epoch: u64,
}

/// A watermark, with the owner and the incarnation in its note.
#[derive(Debug)]
struct Progress {
    next: Position,
    owner: String,
    epoch: u64,
    incarnation: String,
}

impl Progress {
    fn of(next: Position, epoch: u64, note: &[u8]) -> Self {
        let Note { owner, incarnation, .. } = Note::decode(note).unwrap_or_default();
        Self { next, owner, epoch, incarnation }
    }

    /// Whether the bus discards this progress, as it said, for the other's log.
    fn is_discarded_by(&self, other: &Self) -> bool {
        self.incarnation != other.incarnation || other.next < self.next
    }
}

#[derive(Debug)]
struct ObservedMember {
    inner: Arc<dyn Membership>,
    process: Arc<Process>,
    names: Names,
    held: Mutex<BTreeMap<u32, Held>>,
}

impl ObservedMember {
    fn saw(&self, event: &GroupEvent) {
        match event {
            GroupEvent::Assigned(assignments) => {
                for given in assignments {
                    let progress =
                        given.committed.as_ref().map(|found| Progress::of(found.next, found.epoch, &found.note));
                    let held = Held { fresh: true, progress, ..Held::default() };
                    lock(&self.held).insert(given.partition, held);
                }
            }
            GroupEvent::Lost(partitions) => partitions.iter().for_each(|partition| self.lost(*partition)),
            _ => {}
        }
    }

    fn lost(&self, partition: u32) {
        let Some(held) = lock(&self.held).remove(&partition) else { return };
        if !held.fresh {
            let Names { topic, group, member } = &self.names;
            self.process.note(Kind::OwnershipLost {
                topic: topic.clone(),
                group: group.clone(),
                partition,
                member: member.clone(),
                epoch: held.epoch,
            });
        }
    }

    /// Records where a partition without progress begins, before its claim is sent.
    fn before_claim(&self, partition: u32, position: u64) {
        let Names { topic, group, .. } = &self.names;
        let (topic, group) = (topic.clone(), group.clone());
        let mut held = lock(&self.held);
        let Some(held) = held.get_mut(&partition) else { return };
        if held.fresh && held.progress.is_none() && !std::mem::replace(&mut held.begun, true) {
            self.process.note(Kind::StartPosition { topic, group, partition, position });
        }
    }

    /// The reason why a claim that is about to be sent begins elsewhere; `None` if it does not.
    fn elsewhere(&self, claim: &Progress, partition: u32, seek: bool) -> Option<Elsewhere> {
        let Names { topic, group, .. } = &self.names;
        let said = self.process.expects_reset(topic, group, partition);
        let held = lock(&self.held);
        if let Some(before) = held.get(&partition).and_then(|held| held.progress.as_ref()) {
            if said && before.is_discarded_by(claim) {
                return Some(Elsewhere::Reset);
            }
            // The progress that it found may be an earlier claim that was stored and never answered.
            let found = self.process.unanswered((topic, group, partition), before.epoch, &before.owner);
            if found.is_some() {
                return found;
            }
        }
        (seek && self.process.expects_seek()).then_some(Elsewhere::Seek)
    }

    /// Records the session that a confirmed claim begins.
    fn session(&self, partition: u32, claimed: Progress, seek: bool, elsewhere: Option<Elsewhere>) {
        let Names { topic, group, member } = &self.names;
        let (view, epoch, position) = ((&**topic, &**group, partition), claimed.epoch, claimed.next.get());
        self.process.take_reset(topic, group, partition);
        let mut found = None;
        if let Some(held) = lock(&self.held).get_mut(&partition) {
            (held.epoch, held.fresh) = (epoch, false);
            found = held.progress.replace(claimed);
        }
        // The progress that was found may be a claim that was stored and never answered.
        let found = found.and_then(|found| self.process.answered(view, found.epoch, &found.owner));
        // This claim is answered, and so is an earlier one of the same epoch, which was fenced.
        let _ = self.process.answered(view, epoch, member);
        let elsewhere = elsewhere.or(found);
        // A claim that was confirmed late, to a former owner, began no session.
        if !self.process.latest_epoch(view, epoch) {
            return;
        }
        let (topic, group, to) = (topic.clone(), group.clone(), Some(position));
        match elsewhere {
            Some(Elsewhere::Seek) => self.process.note(Kind::Seek { topic, group, partition, to }),
            Some(Elsewhere::Reset) => self.process.note(Kind::LogReset { topic, group, partition, position }),
            None => {}
        }
        let cause = if seek { SessionCause::Seek } else { SessionCause::Assigned };
        let Names { topic, group, member } = &self.names;
        self.process.note(Kind::SessionStart {
            topic: topic.clone(),
            group: group.clone(),
            partition,
            member: member.clone(),
            epoch,
            cause,
            from: Some(position),
        });
    }

    fn describe(&self, commit: &Commit) -> history::Commit {
        let Names { topic, group, member } = &self.names;
        history::Commit {
            call: self.process.next_call(),
            topic: topic.clone(),
            group: group.clone(),
            partition: commit.partition,
            position: commit.next.get(),
            epoch: commit.epoch,
            member: member.clone(),
            beyond: self.beyond(commit),
        }
    }

    /// The finished-beyond set of the note, which a successor will skip.
    fn beyond(&self, commit: &Commit) -> Vec<(u64, u64)> {
        let Ok(note) = Note::decode(&commit.note) else { return Vec::new() };
        if note.finished.is_cut() {
            self.process.saw("horizon cut");
        }
        if note.suspect_until.is_some() {
            self.process.saw("one at a time");
        }
        if note.trying.is_some() {
            self.process.saw("start written to the note");
        }
        if note.unclean_starts > 1 {
            self.process.saw("unclean start");
        }
        note.finished.runs().map(|run| (run.first.get(), run.last.get().saturating_add(1))).collect()
    }
}

#[async_trait]
impl ForwardMember for ObservedMember {
    fn inner(&self) -> &dyn Membership {
        &*self.inner
    }

    fn reach(&self) -> Result<&dyn Membership> {
        alive(&self.process)?;
        Ok(&*self.inner)
    }

    async fn next(&self) -> Result<GroupEvent> {
        alive(&self.process)?;
        let event = tokio::select! {
            biased;
            () = self.process.killed() => return Err(Error::new(ErrorKind::Closed, "the process was killed")),
            event = self.inner.next() => event?,
        };
        self.saw(&event);
        Ok(event)
    }

    fn pause(&self, partition: u32) {
        self.process.saw("intake paused");
        self.inner.pause(partition);
    }

    async fn commit(&self, commit: Commit) -> Result<()> {
        alive(&self.process)?;
        let (partition, claim) = (commit.partition, commit.claim);
        let progress = Progress::of(commit.next, commit.epoch, &commit.note);
        let seek = claim && lock(&self.held).get(&partition).is_some_and(|held| !held.fresh);
        let elsewhere = if claim { self.elsewhere(&progress, partition, seek) } else { None };
        if claim {
            self.before_claim(partition, commit.next.get());
            if let Some(why) = elsewhere {
                let Names { topic, group, member } = &self.names;
                self.process.claims_elsewhere((topic, group, partition), commit.epoch, member, why);
            }
        }
        let told = self.describe(&commit);
        if !claim {
            self.process.note(Kind::CommitSent(told.clone()));
        }
        let committed = self.inner.commit(commit).await;
        if committed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced) {
            self.process.saw("commit fenced");
        }
        committed?;
        alive(&self.process)?;
        if claim {
            // A claim is no progress: it repeats what was committed, or moves on purpose.
            self.session(partition, progress, seek, elsewhere);
        } else {
            if let Some(held) = lock(&self.held).get_mut(&partition) {
                held.progress = Some(progress);
            }
            self.process.note(Kind::CommitConfirmed(told));
        }
        Ok(())
    }

    async fn release(&self, partition: u32) -> Result<()> {
        alive(&self.process)?;
        lock(&self.held).remove(&partition);
        self.inner.release(partition).await
    }

    async fn leave(&self) -> Result<()> {
        alive(&self.process)?;
        let Names { group, member, .. } = &self.names;
        self.process.note(Kind::MemberLeft { group: group.clone(), member: member.clone() });
        self.inner.leave().await
    }
}

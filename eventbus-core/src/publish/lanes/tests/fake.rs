//! A backend that keeps every submission until the test decides its fate.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Ticket, *};
use crate::model::{Error, ErrorKind, Group, Position, Result, Stamp, Topic, TopicSpec};

pub(crate) const TOPIC: &str = "orders";

/// The mode in which `submit` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A submission is kept until the test answers it.
    Hold,
    /// A submission is stored, and told so within the call.
    StoreAtOnce,
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) partition: u32,
    pub(crate) position: Position,
    pub(crate) stamp: Stamp,
    pub(crate) key: Option<String>,
    pub(crate) id: String,
}

#[derive(Debug)]
pub(crate) struct FakeState {
    pub(crate) mode: Mode,
    /// Submissions without an answer, in order.
    pub(crate) held: VecDeque<(Outbound, Ticket)>,
    pub(crate) log: Vec<Stored>,
    /// The id of every submission, in order, re-sends included.
    pub(crate) submitted: Vec<String>,
    /// Whether the re-send of a stored stamp is recognised as a copy.
    pub(crate) removes_copies: bool,
    pub(crate) looked_from: Vec<Position>,
    pub(crate) look_errors: Vec<Error>,
    pub(crate) describe_errors: VecDeque<Error>,
    pub(crate) described: usize,
    pub(crate) incarnation: String,
    /// The first position that is still in the log.
    pub(crate) first: Position,
    /// The largest record, as the topic's description says.
    pub(crate) limit: Option<usize>,
    /// The number of partitions, where a test changed it.
    pub(crate) grown: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) capabilities: Capabilities,
    pub(crate) spec: TopicSpec,
    state: Mutex<FakeState>,
    /// Whether the backend breaks its contract and stores behind a hole.
    pub(crate) trusts: bool,
    /// A lock for threads that answer, where there are several.
    pub(crate) answering: Mutex<()>,
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "cut")
}

impl Fake {
    pub(crate) fn new(pipelining: Pipelining) -> Self {
        let capabilities = Capabilities { pipelining, resend_window: None, ..Capabilities::default() };
        let state = FakeState {
            mode: Mode::Hold,
            held: VecDeque::new(),
            log: Vec::new(),
            submitted: Vec::new(),
            removes_copies: true,
            looked_from: Vec::new(),
            look_errors: Vec::new(),
            describe_errors: VecDeque::new(),
            described: 0,
            incarnation: "one".into(),
            first: Position::ZERO,
            grown: None,
            limit: None,
        };
        Self {
            capabilities,
            spec: TopicSpec::new(TOPIC).partitions(1),
            state: Mutex::new(state),
            answering: Mutex::new(()),
            trusts: false,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn description(&self) -> TopicDescription {
        let state = self.state();
        let end = state.log.last().map_or(state.first, |stored| stored.position.next());
        let log = LogState { incarnation: state.incarnation.clone(), first: state.first, end };
        let spec = self.spec.clone().partitions(state.grown.unwrap_or(self.spec.partitions));
        let partitions = vec![log; spec.partitions as usize];
        let mut description = TopicDescription::new(spec, state.incarnation.clone(), partitions);
        description.max_record_bytes = state.limit;
        description
    }

    pub(crate) fn end(&self) -> Position {
        self.state().log.last().map_or(Position::ZERO, |stored| stored.position.next())
    }

    /// Removes everything below this position, as retention does.
    pub(crate) fn retain_from(&self, first: Position) {
        let mut state = self.state();
        state.first = first;
        state.log.retain(|stored| stored.position >= first);
    }

    /// Returns the ids that are submitted and not answered.
    pub(crate) fn held(&self) -> Vec<String> {
        self.state().held.iter().map(|(record, _)| record.envelope.id().into()).collect()
    }

    /// Returns the ids in the log, in order.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.state().log.iter().map(|stored| stored.id.clone()).collect()
    }

    fn take(&self, id: &str) -> (Outbound, Ticket) {
        let mut state = self.state();
        let index = state.held.iter().position(|(record, _)| record.envelope.id() == id);
        let index = index.unwrap_or_else(|| panic!("{id} is not held"));
        state.held.remove(index).unwrap()
    }

    fn write(&self, record: &Outbound) -> (Position, bool) {
        let mut state = self.state();
        if state.removes_copies
            && let Some(known) = state.log.iter().find(|stored| stored.stamp == record.stamp)
        {
            return (known.position, true);
        }
        let position = Position::new(10 + 2 * state.log.len() as u64);
        state.log.push(Stored {
            partition: record.partition,
            position,
            stamp: record.stamp,
            key: record.envelope.key().map(ToString::to_string),
            id: record.envelope.id().into(),
        });
        (position, false)
    }

    /// Fixes the record's place in the log. A pipelining backend asks before whether the record still stands.
    pub(crate) fn store(&self, id: &str) {
        let (record, ticket) = self.take(id);
        if self.is_behind_a_hole(&ticket) {
            return ticket.tell(Fate::NotStored(unavailable()));
        }
        let (position, duplicate) = self.write(&record);
        ticket.tell(Fate::Stored { position, duplicate });
    }

    pub(crate) fn store_all(&self) {
        while let Some(id) = self.held().first().cloned() {
            self.store(&id);
        }
    }

    pub(crate) fn not_stored(&self, id: &str) {
        self.take(id).1.tell(Fate::NotStored(unavailable()));
    }

    pub(crate) fn refuse(&self, id: &str) {
        self.take(id).1.tell(Fate::Refused(Error::new(ErrorKind::Refused, "no")));
    }

    /// Refuses a record that the client may have sent before.
    pub(crate) fn doubt(&self, id: &str) {
        self.take(id).1.tell(Fate::Doubtful(Error::new(ErrorKind::PermissionDenied, "no right to write")));
    }

    /// Stores a record, loses the answer, and refuses what the client sends again by itself.
    pub(crate) fn write_and_doubt(&self, id: &str) {
        let (record, ticket) = self.take(id);
        if !self.is_behind_a_hole(&ticket) {
            self.write(&record);
        }
        ticket.tell(Fate::Doubtful(Error::new(ErrorKind::PermissionDenied, "no right to write")));
    }

    /// Loses a submission: it never arrives, and nobody knows.
    pub(crate) fn lose(&self, id: &str) {
        drop(self.take(id).1);
    }

    /// Loses an answer: the record is stored, and nobody knows.
    pub(crate) fn lose_answer(&self, id: &str) {
        let (record, ticket) = self.take(id);
        if !self.is_behind_a_hole(&ticket) {
            self.write(&record);
        }
        ticket.tell(Fate::Unknown(unavailable()));
    }

    fn is_behind_a_hole(&self, ticket: &Ticket) -> bool {
        self.capabilities.pipelining == Pipelining::PerPartition && !self.trusts && !ticket.stands()
    }
}

#[async_trait]
impl Backend for Fake {
    fn system(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn open(&self) -> Result<()> {
        Ok(())
    }

    fn in_force(&self, spec: &TopicSpec) -> Result<TopicSpec> {
        Ok(spec.clone())
    }

    async fn create_topic(&self, _: &TopicSpec) -> Result<bool> {
        Ok(false)
    }

    async fn update_topic(&self, _: &TopicSpec) -> Result<()> {
        Ok(())
    }

    async fn describe_topic(&self, _: &Topic) -> Result<TopicDescription> {
        let error = {
            let mut state = self.state();
            state.described += 1;
            state.describe_errors.pop_front()
        };
        error.map_or_else(|| Ok(self.description()), Err)
    }

    async fn count_partitions(&self, topic: &Topic) -> Result<u32> {
        Ok(self.describe_topic(topic).await?.spec.partitions)
    }

    async fn delete_topic(&self, _: &Topic) -> Result<()> {
        Ok(())
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        Ok(Vec::new())
    }

    fn submit(&self, record: Outbound, ticket: Ticket) {
        self.state().submitted.push(record.envelope.id().into());
        let mode = self.state().mode;
        if mode == Mode::Hold {
            self.state().held.push_back((record, ticket));
            return;
        }
        let (position, duplicate) = self.write(&record);
        ticket.tell(Fate::Stored { position, duplicate });
    }

    async fn find_stamp(&self, _: &Topic, partition: u32, from: Position, stamp: Stamp) -> Result<Option<Position>> {
        let mut state = self.state();
        state.looked_from.push(from);
        if let Some(error) = state.look_errors.pop() {
            return Err(error);
        }
        let found = state.log.iter().find(|s| s.partition == partition && s.position >= from && s.stamp == stamp);
        Ok(found.map(|stored| stored.position))
    }

    async fn position_at(&self, _: &Topic, _: u32, _: u64) -> Result<Position> {
        Ok(Position::ZERO)
    }

    async fn join(&self, _: Join) -> Result<Arc<dyn Membership>> {
        Err(Error::new(ErrorKind::Unsupported, "this backend has no groups"))
    }

    async fn list_groups(&self, _: &Topic) -> Result<Vec<Group>> {
        Ok(Vec::new())
    }

    async fn describe_group(&self, _: &Topic, _: &Group) -> Result<GroupDescription> {
        Err(Error::new(ErrorKind::UnknownGroup, "this backend has no groups"))
    }

    async fn reset_group(&self, _: &Topic, _: &Group, _: &[(u32, Position)]) -> Result<()> {
        Ok(())
    }

    async fn delete_group(&self, _: &Topic, _: &Group) -> Result<()> {
        Ok(())
    }

    async fn health(&self) -> Health {
        Health::new(ConnectionState::Connected)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

pub(crate) const WINDOW: Duration = Duration::from_secs(120);

//! [`State`]: all that the world's lock protects, and the changes to it.
//!
//! Its parts stand beside this folder, each with the changes that concern it alone. The files here make the changes
//! that take several parts. Each calls only those above it:
//!
//! | file | what it does |
//! |---|---|
//! | `groups` | heartbeats, sessions and fences of members; wake-ups and events |
//! | `topics` | topics created, deleted, and created again |
//! | `members` | joining, and each member's next event |
//! | `progress` | commits and claims, behind the fence (S5); administration of groups |
//! | `submissions` | submissions on their way to the log, and their fates on the way back (P1, P2) |
//! | `outages` | cuts, freezes, a broker that is down; the effect of each timer |

mod groups;
mod members;
mod outages;
mod progress;
mod submissions;
mod topics;

use std::collections::BTreeMap;

use eventbus_core::{Group, Result, Topic};

use crate::config::MemoryConfig;
use crate::connection::Connections;
use crate::faults::Armed;
use crate::group::{GroupState, TopicGroups};
use crate::in_flight::{Flight, Pipes};
use crate::timers::{MemberKey, Timer, Timers};
use crate::topic::{TopicState, unknown_topic};

#[derive(Debug)]
pub(crate) struct MemoryState {
    pub(crate) config: MemoryConfig,
    pub(crate) topics: BTreeMap<Topic, TopicState>,
    /// Number of topics ever created, and of the newest incarnation.
    pub(crate) incarnations: u64,
    /// Groups of each topic. Progress outlives a topic, so they are kept beside it.
    pub(crate) groups: BTreeMap<Topic, TopicGroups>,
    pub(crate) connections: Connections,
    /// Submissions that were not answered inside the call.
    pub(crate) flights: BTreeMap<u64, Flight>,
    pub(crate) pipes: Pipes,
    pub(crate) timers: Timers,
    pub(crate) armed: Armed,
    /// Timers that ran out while the broker was down; they fire when it is back.
    pub(crate) timers_after_restart: Vec<Timer>,
    ids: u64,
}

impl MemoryState {
    pub(crate) fn new(config: MemoryConfig) -> Self {
        Self {
            config,
            topics: BTreeMap::new(),
            incarnations: 0,
            groups: BTreeMap::new(),
            connections: Connections::default(),
            flights: BTreeMap::new(),
            pipes: Pipes::default(),
            timers: Timers::default(),
            armed: Armed::default(),
            timers_after_restart: Vec::new(),
            ids: 0,
        }
    }

    /// Returns a number that was never used before, for connections, members, flights and faults.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn topic(&self, topic: &Topic) -> Result<&TopicState> {
        self.topics.get(topic).ok_or_else(unknown_topic)
    }

    /// Returns a topic, after retention.
    pub(crate) fn current(&mut self, topic: &Topic, unix_millis: u64) -> Result<&mut TopicState> {
        let state = self.topics.get_mut(topic).ok_or_else(unknown_topic)?;
        state.retain(unix_millis);
        Ok(state)
    }

    pub(crate) fn group(&mut self, topic: &Topic, group: &Group) -> Option<&mut GroupState> {
        self.groups.get_mut(topic)?.get_mut(group)
    }

    /// A group and the timers, which most of its changes need.
    pub(crate) fn group_and_timers(&mut self, topic: &Topic, group: &Group) -> Option<(&mut GroupState, &mut Timers)> {
        Some((self.groups.get_mut(topic)?.get_mut(group)?, &mut self.timers))
    }

    /// The keys of one connection's members.
    pub(crate) fn members_of(&self, connection: u64) -> Vec<MemberKey> {
        let groups = self.groups.values().flat_map(BTreeMap::values);
        groups
            .flat_map(|group| group.members.iter().map(move |(id, member)| (group, *id, member)))
            .filter(|(_, _, member)| member.connection == connection)
            .map(|(group, id, _)| group.key(id))
            .collect()
    }
}

//! What the world's lock protects, and what each timer does.

use std::collections::BTreeMap;

use eventbus_core::Topic;

use crate::config::MemoryConfig;
use crate::connection::Connection;
use crate::faults::Armed;
use crate::group::TopicGroups;
use crate::producer::{Flight, Pipes};
use crate::timers::{Timer, Timers};
use crate::topics::TopicState;
use crate::world::Step;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: MemoryConfig,
    pub(crate) topics: BTreeMap<Topic, TopicState>,
    /// Topics ever created, the number of the newest incarnation.
    pub(crate) incarnations: u64,
    /// Progress outlives a topic, so groups are kept beside it.
    pub(crate) groups: BTreeMap<Topic, TopicGroups>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    /// Submissions that were not answered inside the call.
    pub(crate) flights: BTreeMap<u64, Flight>,
    pub(crate) pipes: Pipes,
    pub(crate) timers: Timers,
    pub(crate) armed: Armed,
    pub(crate) broker_down: bool,
    /// What ran out while the broker was down, to be looked at when it is back.
    pub(crate) timers_after_restart: Vec<Timer>,
    ids: u64,
}

impl State {
    pub(crate) fn new(config: MemoryConfig) -> Self {
        Self {
            config,
            topics: BTreeMap::new(),
            incarnations: 0,
            groups: BTreeMap::new(),
            connections: BTreeMap::new(),
            flights: BTreeMap::new(),
            pipes: Pipes::default(),
            timers: Timers::default(),
            armed: Armed::default(),
            broker_down: false,
            timers_after_restart: Vec::new(),
            ids: 0,
        }
    }

    /// A number that was never used before, for connections, members, ownerships, flights and faults.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn fire(&mut self, timer: Timer, step: &mut Step) {
        match timer {
            Timer::Arrive(flight) => self.arrived(flight, step),
            Timer::Answer(flight) => self.answered(flight, step),
            Timer::Expire(member) => self.session_over(&member, step),
            Timer::Fence { topic, group, partition, ownership } => {
                self.fence_late(&topic, &group, partition, ownership, step);
            }
            Timer::Wake(member) => self.wake(&member, step),
            Timer::Heal(connection) => self.heal(connection, step),
            Timer::Thaw(connection) => self.thaw(connection, step),
            Timer::Restart => self.restarted(step),
        }
    }
}

//! [`Faults`]: the handle that injects faults into a world.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{Position, Result, Topic};

use super::armed::{Armed, CommitFault, OnCut, SubmitFault};
use super::event::{FaultEvent, FaultKind, FaultPlace};
use super::scope::{FaultId, Scope};
use crate::backend::MemoryBackend;
use crate::state::MemoryState;
use crate::step::Step;
use crate::timers::{MemberKey, Timer};
use crate::world::{MemoryWorld, World};

/// The handle that injects faults into one world; see [`MemoryWorld::faults`](crate::MemoryWorld::faults).
#[derive(Clone)]
pub struct Faults {
    world: Arc<World>,
}

impl MemoryWorld {
    /// The handle that injects faults and takes observers of them.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults { world: Arc::clone(&self.0) }
    }
}

impl Scope {
    /// Limits the scope to this backend's connection.
    pub fn from(self, backend: &MemoryBackend) -> Self {
        self.over(backend.connection())
    }
}

impl Faults {
    /// Registers an observer: it is called for each fault that takes effect from now on, in order. It must not block,
    /// and may call back.
    pub fn on_fault(&self, observer: impl Fn(&FaultEvent) + Send + Sync + 'static) {
        self.world.observe(Arc::new(observer));
    }

    /// Arms a fault for submissions. If several match one submission, the one armed first strikes.
    pub fn submit(&self, fault: SubmitFault, scope: Scope) -> FaultId {
        self.world.step(|state, _| {
            let id = FaultId(state.fresh_id());
            state.armed.submits.arm(id, scope, fault);
            id
        })
    }

    /// Arms a fault for commits, claims among them.
    pub fn commit(&self, fault: CommitFault, scope: Scope) -> FaultId {
        self.world.step(|state, _| {
            let id = FaultId(state.fresh_id());
            state.armed.commits.arm(id, scope, fault);
            id
        })
    }

    /// Disarms a fault. `true` if it was still armed.
    pub fn disarm(&self, fault: FaultId) -> bool {
        self.world.step(|state, _| state.armed.submits.disarm(fault) | state.armed.commits.disarm(fault))
    }

    /// Ends all faults: disarms what is armed, releases held submissions, heals cuts, thaws freezes, lets heartbeats
    /// through, and brings the broker back.
    pub fn heal_all(&self) {
        self.world.step(|state, step| {
            state.armed = Armed::default();
            state.release_held(step);
            for id in state.connections.ids() {
                state.heal(id, step);
                state.thaw(id, step);
                for key in state.members_of(id) {
                    state.mute(&key, false, step);
                }
            }
            state.restarted(step);
        });
    }

    /// Lets all held submissions arrive. Returns their number.
    pub fn release_held(&self) -> usize {
        self.world.step(|state, step| state.release_held(step))
    }

    /// Cuts a backend's connection until [`heal`](Self::heal). `true` if it was up.
    ///
    /// From now on submissions are not stored, calls and commits fail with a retryable error, deliveries break off with
    /// *interrupted*, and sessions run out after their time.
    pub fn cut(&self, backend: &MemoryBackend, stored: OnCut) -> bool {
        self.world.step(|state, step| state.cut(backend.connection(), stored, step))
    }

    /// Cuts as [`cut`](Self::cut), and heals after a time. `true` if the connection was up.
    pub fn cut_for(&self, backend: &MemoryBackend, stored: OnCut, time: Duration) -> bool {
        self.world.step(|state, step| {
            let cut = state.cut(backend.connection(), stored, step);
            if cut {
                state.timers.set(step.now + time, Timer::Heal(backend.connection()));
            }
            cut
        })
    }

    /// Ends a cut. Members whose session ran out meanwhile learn that they lost everything, and join again.
    pub fn heal(&self, backend: &MemoryBackend) {
        self.world.step(|state, step| state.heal(backend.connection(), step));
    }

    /// Freezes a backend, like a process under a debugger: it hears and says nothing, calls hang, no heartbeat is sent.
    /// `true` if it was running.
    pub fn freeze(&self, backend: &MemoryBackend) -> bool {
        self.world.step(|state, step| state.freeze(backend.connection(), step))
    }

    /// Freezes as [`freeze`](Self::freeze), and thaws after a time. `true` if the backend was running.
    pub fn freeze_for(&self, backend: &MemoryBackend, time: Duration) -> bool {
        self.world.step(|state, step| {
            let frozen = state.freeze(backend.connection(), step);
            if frozen {
                state.timers.set(step.now + time, Timer::Thaw(backend.connection()));
            }
            frozen
        })
    }

    /// Ends a freeze: everything that came meanwhile arrives now.
    pub fn thaw(&self, backend: &MemoryBackend) {
        self.world.step(|state, step| state.thaw(backend.connection(), step));
    }

    /// Ends a backend like kill -9 of its process: all its members are silent from now on, nothing is released.
    /// Submissions under way are stored or lost as `stored` says.
    pub fn kill(&self, backend: &MemoryBackend, stored: OnCut) {
        self.world.step(|state, step| {
            state.cut_flights(backend.connection(), stored, step);
            state.close(backend.connection(), step);
        });
    }

    /// Kills one member: its handle fails from now on, and its partitions are free once its session is over (at once,
    /// by [`MemoryConfig::expire_killed_at_once`](crate::MemoryConfig::expire_killed_at_once)). `true` if there was
    /// one.
    pub fn kill_member(&self, topic: &str, group: &str, member: &str) -> bool {
        self.with_member(topic, group, member, |state, key, step| {
            state.kill_member(key, step);
        })
    }

    /// Ends a member's session: the member loses all its partitions, at once and without being asked, and joins again
    /// when it next asks for an event. `true` if there was one.
    pub fn expire_session(&self, topic: &str, group: &str, member: &str) -> bool {
        self.with_member(topic, group, member, |state, key, step| {
            state.report(FaultKind::SessionExpired, key, step);
            if let Some((group, timers)) = state.group_and_timers(&key.topic, &key.group) {
                group.expire(key.id, timers, step);
            }
        })
    }

    /// Suppresses a member's heartbeats: its leases end, and after its session time-out it loses its partitions. `true`
    /// if there was one.
    pub fn stop_heartbeats(&self, topic: &str, group: &str, member: &str) -> bool {
        self.with_member(topic, group, member, |state, key, step| state.mute(key, true, step))
    }

    /// Lets a member's heartbeats through again. `true` if there was one.
    pub fn resume_heartbeats(&self, topic: &str, group: &str, member: &str) -> bool {
        self.with_member(topic, group, member, |state, key, step| state.mute(key, false, step))
    }

    /// Takes one partition away from its owner without asking, and gives it out anew. `true` if the member had it.
    pub fn take_away(&self, topic: &str, group: &str, member: &str, partition: u32) -> bool {
        self.with_member(topic, group, member, |state, key, step| {
            state.report(FaultKind::TakenAway, key, step);
            state.fence_partition(key, partition, step);
        })
    }

    /// Removes a partition's records below a position, as retention would.
    ///
    /// # Errors
    /// `InvalidName`, `UnknownTopic`.
    pub fn truncate(&self, topic: &str, partition: u32, first: Position) -> Result<()> {
        let topic: Topic = topic.parse()?;
        self.world.step(|state, step| {
            state.current(&topic, step.unix_millis)?.truncate(partition, first);
            step.faults.push(FaultKind::Truncated.at(FaultPlace::partition(&topic, partition)));
            state.wake_all(&topic, step);
            Ok(())
        })
    }

    /// Deletes a topic and creates it again: another incarnation, an empty log, and the groups' old progress.
    ///
    /// # Errors
    /// `InvalidName`, `UnknownTopic`.
    pub fn recreate(&self, topic: &str) -> Result<()> {
        let topic: Topic = topic.parse()?;
        self.world.step(|state, step| {
            state.recreate_topic(&topic, step)?;
            step.faults.push(FaultKind::Recreated.at(FaultPlace::topic(&topic)));
            Ok(())
        })
    }

    /// Takes the broker down for a time. All connections are cut; no session runs out meanwhile; the logs and the
    /// groups' progress survive. Without effect while the broker is down.
    pub fn restart_broker(&self, stored: OnCut, down: Duration) {
        self.world.step(|state, step| {
            if !state.connections.broker_down {
                state.broker_stops(stored, down, step);
            }
        });
    }

    fn with_member(
        &self,
        topic: &str,
        group: &str,
        member: &str,
        change: impl FnOnce(&mut MemoryState, &MemberKey, &mut Step),
    ) -> bool {
        self.world.step(|state, step| match state.member_named(topic, group, member) {
            Some(key) => {
                change(state, &key, step);
                true
            }
            None => false,
        })
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

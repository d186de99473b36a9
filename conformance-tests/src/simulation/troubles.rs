//! Troubles, and how each is made in a schedule under way.

use std::collections::BTreeMap;
use std::time::Duration;

use eventbus_core::{Position, StartFrom, dead_letter};
use eventbus_memory::{CommitFault, OnCut, Scope, SubmitFault};

use super::chaos::Chaos;
use super::plan::{GROUP, TOPIC};
use super::sim::Sim;

impl Sim {
    /// Makes one trouble now.
    pub(super) async fn trouble(&mut self, chaos: Chaos) {
        let faults = self.world.faults();
        match chaos {
            Chaos::Drop => self.arm(SubmitFault::Drop),
            Chaos::Delay => {
                let delay = self.dice.millis(1, 1_000);
                self.arm(SubmitFault::Delay(delay));
            }
            Chaos::Refuse => self.arm(SubmitFault::Refuse),
            Chaos::NotStored => self.arm(SubmitFault::NotStored),
            Chaos::LoseConfirmation => self.arm(SubmitFault::LoseConfirmation),
            Chaos::Hold => self.arm(SubmitFault::Hold),
            Chaos::Release => drop(faults.release_held()),
            Chaos::CommitFence => self.arm_commit(CommitFault::Fence),
            Chaos::CommitUnavailable => self.arm_commit(CommitFault::Unavailable),
            Chaos::CommitLoseAnswer => self.arm_commit(CommitFault::LoseAnswer),
            Chaos::Cut => {
                let time = self.around_session();
                let stored = self.dice.one_of(&[OnCut::Stored, OnCut::Lost, OnCut::Drawn]);
                if let Some(node) = self.pick() {
                    faults.cut_for(&self.nodes[node].backend, stored, time);
                }
            }
            Chaos::Freeze => {
                let time = self.around_session();
                if let Some(node) = self.pick() {
                    faults.freeze_for(&self.nodes[node].backend, time);
                }
            }
            Chaos::BrokerRestart => {
                let down = self.dice.millis(10, 2_000);
                faults.restart_broker(OnCut::Drawn, down);
            }
            Chaos::Kill => self.kill_one().await,
            Chaos::Expire | Chaos::StopHeartbeats | Chaos::TakeAway => self.trouble_member(chaos),
            Chaos::Join => self.start_node().await,
            Chaos::Leave | Chaos::DropSubscription => self.leave_one(chaos == Chaos::Leave),
            Chaos::Seek => self.seek_one().await,
            Chaos::Concurrency => self.change_concurrency(),
            Chaos::Pause => self.pause_one(),
            Chaos::ResumeKey => self.resume_key(),
            Chaos::Truncate => self.truncate().await,
            Chaos::Recreate => self.recreate().await,
            Chaos::DeadLettersDown => self.dead_letters_down(),
        }
    }

    fn scope(&mut self) -> Scope {
        let scope = Scope::topic(TOPIC).nth(self.dice.between(1, 6)).times(self.dice.between(1, 3));
        match self.pick() {
            Some(node) if self.dice.percent(30) && !self.nodes[node].keys.is_empty() => {
                let keys = &self.nodes[node].keys;
                let key = &keys[self.dice.index(keys.len())];
                scope.key(key)
            }
            _ => scope,
        }
    }

    fn arm(&mut self, fault: SubmitFault) {
        let scope = self.scope();
        self.world.faults().submit(fault, scope);
    }

    fn arm_commit(&mut self, fault: CommitFault) {
        let scope = Scope::any().group(GROUP).nth(self.dice.between(1, 4)).times(self.dice.between(1, 3));
        self.world.faults().commit(fault, scope);
    }

    fn trouble_member(&mut self, chaos: Chaos) {
        let Some(node) = self.pick() else { return };
        let Some(member) = self.nodes[node].subscription.as_ref().map(|s| s.member().to_owned()) else { return };
        let faults = self.world.faults();
        match chaos {
            Chaos::Expire => drop(faults.expire_session(TOPIC, GROUP, &member)),
            Chaos::TakeAway => {
                let partition = u32::try_from(self.dice.index(self.plan.partitions as usize)).unwrap_or(0);
                faults.take_away(TOPIC, GROUP, &member, partition);
            }
            _ => {
                faults.stop_heartbeats(TOPIC, GROUP, &member);
                let time = self.around_session();
                let faults = faults.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    faults.resume_heartbeats(TOPIC, GROUP, &member);
                });
            }
        }
    }

    fn change_concurrency(&mut self) {
        let most = self.plan.concurrency as u64;
        let concurrency = usize::try_from(self.dice.between(1, most)).unwrap_or(1);
        let Some(node) = self.pick() else { return };
        if let Some(subscription) = &self.nodes[node].subscription {
            let _ = subscription.set_concurrency(concurrency);
            self.met.see("concurrency changed");
        }
    }

    fn pause_one(&mut self) {
        let time = self.dice.millis(10, 2_000);
        let Some(node) = self.pick() else { return };
        if let Some(subscription) = self.nodes[node].subscription.clone() {
            self.met.see("paused and resumed");
            subscription.pause();
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                subscription.resume();
            });
        }
    }

    fn resume_key(&mut self) {
        let Some(node) = self.pick() else { return };
        let keys = &self.nodes[node].keys;
        if keys.is_empty() {
            return;
        }
        let key = &keys[self.dice.index(keys.len())];
        self.met.see("key resumed");
        let _ = self.nodes[node].node.publisher().resume(TOPIC, key);
    }

    fn dead_letters_down(&mut self) {
        let Ok(letters) = dead_letter::topic_of(&self.topic, &self.group) else { return };
        let fault = self.dice.one_of(&[SubmitFault::NotStored, SubmitFault::Drop, SubmitFault::Refuse]);
        let faults = self.world.faults();
        let armed = faults.submit(fault, Scope::topic(letters.as_str()).always());
        self.met.see("dead-letter topic down");
        let time = self.dice.millis(100, 5_000);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            faults.disarm(armed);
        });
    }

    async fn truncate(&mut self) {
        let one = u32::try_from(self.dice.index(self.plan.partitions as usize)).unwrap_or(0);
        let Some(log) = self.log_of(one).await else { return };
        let first = self.dice.between(log.first.get(), log.end.get());
        // Where the partitions share their positions, retention takes the oldest of all of them.
        let partitions = if self.plan.shared_positions { 0..self.plan.partitions } else { one..one + 1 };
        for partition in partitions {
            let _ = self.world.faults().truncate(TOPIC, partition, Position::new(first));
        }
    }

    /// Deletes the topic and makes it again, while no publish is under way: its answer would not say which of the two
    /// logs it is about.
    async fn recreate(&mut self) {
        if self.publishes_over(Duration::from_secs(20)).await {
            let _ = self.world.faults().recreate(TOPIC);
        }
    }

    async fn seek_one(&mut self) {
        let Some(node) = self.pick() else { return };
        let Some(subscription) = self.nodes[node].subscription.clone() else { return };
        let mut to = BTreeMap::new();
        for partition in 0..self.plan.partitions {
            let Some(log) = self.log_of(partition).await else { return };
            let position = self.dice.between(log.first.get(), log.end.get());
            to.insert(partition, Position::new(position));
        }
        self.nodes[node].node.process().expect_seek();
        self.met.see("seek");
        tokio::spawn(async move { subscription.seek(StartFrom::Positions(to)).await });
    }
}

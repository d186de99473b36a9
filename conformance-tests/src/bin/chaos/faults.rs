//! Faults, and members that come and go.

use conformance_tests::history::Kind;
use conformance_tests::suite::{Failure, PublishFault, Publishes, UnderWay};
use rand::Rng;

use super::{Chaos, LEASE, MEMBERS, TOPIC, wrong};

impl Chaos {
    fn drawn(&mut self) -> usize {
        self.draws.random_range(0..self.members.len())
    }

    /// Injects one fault or change, and ends it if it lasts.
    pub(crate) async fn strike(&mut self) -> Result<(), Failure> {
        let what = match self.draws.random_range(0..100) {
            0..8 => "broker killed",
            8..16 => "broker frozen",
            16..36 => "connection cut",
            36..56 => "acknowledgements lost",
            56..68 => "member killed",
            68..82 => "member frozen past its lease",
            82..91 => "member joins",
            _ => "member leaves",
        };
        *self.injected.entry(what).or_default() += 1;
        match what {
            "broker killed" => self.broker_killed(what).await,
            "broker frozen" => {
                self.run.fault(what, true);
                let long = self.pause(200, 4_000);
                self.run.fixture().freeze_broker(long).await?;
                self.run.healed(what);
                Ok(())
            }
            "connection cut" => self.connection_cut(what).await,
            "acknowledgements lost" => {
                let times = self.draws.random_range(1..20);
                let which = Publishes::to(TOPIC).times(times);
                self.run.on_publish(PublishFault::LoseConfirmation, which).await.map(drop)
            }
            "member killed" => self.member_killed().await,
            "member frozen past its lease" => self.member_frozen().await,
            "member joins" if self.members.len() < MEMBERS => self.join().await,
            _ if self.members.len() > 1 => {
                let index = self.drawn();
                let mut member = self.members.swap_remove(index);
                self.seen(&member);
                // Envelopes that it could not finish in time come again; the oracle judges that.
                drop(member.process.leave().await);
                Ok(())
            }
            _ => self.join().await,
        }
    }

    async fn broker_killed(&mut self, what: &str) -> Result<(), Failure> {
        self.run.fault(what, true);
        let down = self.pause(100, 1_500);
        self.run.fixture().restart(UnderWay::Either, down).await?;
        tokio::time::sleep(down).await;
        self.run.fixture().back().await;
        self.run.healed(what);
        Ok(())
    }

    async fn connection_cut(&mut self, what: &str) -> Result<(), Failure> {
        let long = self.pause(50, 3_000);
        let connection = match self.draws.random_range(0..=self.members.len()) {
            index if index < self.members.len() => self.members[index].connection.clone(),
            _ => self.publisher.connection().clone(),
        };
        self.run.fault(what, true);
        connection.cut(UnderWay::Either).await?;
        tokio::time::sleep(long).await;
        connection.heal().await?;
        self.run.healed(what);
        Ok(())
    }

    async fn member_killed(&mut self) -> Result<(), Failure> {
        let index = self.drawn();
        let mut member = self.members.swap_remove(index);
        self.seen(&member);
        member.process.kill().await.map_err(wrong)?;
        self.run.note(Kind::ProcessKilled { victim: member.process.number() });
        if self.members.is_empty() {
            self.join().await?;
        }
        Ok(())
    }

    async fn member_frozen(&mut self) -> Result<(), Failure> {
        let index = self.drawn();
        let long = self.pause(LEASE, 3 * LEASE);
        let member = &self.members[index];
        let name = format!("freeze of process {}", member.process.number());
        self.run.fault(&name, true);
        member.process.freeze().map_err(wrong)?;
        tokio::time::sleep(long).await;
        self.members[index].process.thaw().map_err(wrong)?;
        self.run.healed(&name);
        Ok(())
    }
}

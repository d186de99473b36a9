//! Real brokers in containers, and what can be done to them.
//!
//! One harness owns them, whatever runner the tests use. Its rules:
//!
//! - **Nothing outlives its run.** Every container is labelled with its owner: a process and its start time, which
//!   together no later process has. [`sweep`] removes what belongs to owners that are gone, at the start of every run;
//!   [`shut_down`] removes what this run started. A runner that gives each test a process of its own names itself as
//!   the owner (`EVENTBUS_TEST_OWNER`, or it is the parent under nextest), so that its processes share brokers.
//! - **Ports stay.** A broker's port is chosen once, held by a lock file against other runs, and mapped fixed: it is
//!   the same after a kill and a start.
//! - **Data stays.** It lies in a volume that outlives a kill and goes with the container.
//! - **A broker that is harmed is nobody else's.** [`Broker::own`] starts one for a single case, and one such case runs
//!   at a time; [`Broker::shared`] is for all others, who keep apart by the prefix of their names.

mod container;
mod engine;
mod kafka;
mod nats;
mod owner;
mod ports;
mod users;

pub use container::{Broker, Server};
pub use engine::{BrokerError, background, shut_down, sweep};
pub use kafka::KafkaServer;
pub use nats::{NatsServer, NatsVersion};
pub(crate) use users::OPERATOR;

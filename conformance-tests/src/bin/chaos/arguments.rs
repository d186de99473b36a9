//! The program's arguments.

use std::sync::Arc;
use std::time::Duration;

use conformance_tests::brokers::NatsVersion;
use conformance_tests::suite::{GroupProtocol, KafkaProvider, NatsProvider, Provider};

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    pub(crate) rate: u64,
    pub(crate) kafka: bool,
    /// Whether an operator has a hand in it.
    pub(crate) operator: bool,
    version: NatsVersion,
    groups: GroupProtocol,
}

impl Asked {
    /// The provider of the world. An operator changes permissions, too.
    pub(crate) fn provider(&self) -> std::io::Result<Arc<dyn Provider>> {
        Ok(match (self.kafka, self.operator) {
            (true, true) => Arc::new(KafkaProvider::governed(self.groups)),
            (true, false) => Arc::new(KafkaProvider::containers(self.groups)),
            (false, true) => Arc::new(NatsProvider::governed(self.version)?),
            (false, false) => Arc::new(NatsProvider::containers(self.version)),
        })
    }
}

pub(crate) fn asked() -> Result<Asked, String> {
    let (time, version, groups) = (Duration::from_secs(120), NatsVersion::Newest, GroupProtocol::Classic);
    let mut asked = Asked { time, seed: 1, rate: 300, kafka: false, operator: true, version, groups };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: expected a value"))?;
        let expected = |what: &str| format!("{name}: expected {what}, got {value:?}");
        let number = || value.parse::<u64>().map_err(|_| expected("a number"));
        let either = |yes: &str, no: &str| match value.as_str() {
            found if found == yes => Ok(true),
            found if found == no => Ok(false),
            _ => Err(expected(&format!("{yes} or {no}"))),
        };
        match name.as_str() {
            "--minutes" => {
                let minutes: f64 = value.parse().map_err(|_| expected("a number"))?;
                asked.time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())?;
            }
            "--seed" => asked.seed = number()?,
            "--rate" => asked.rate = number()?.max(1),
            "--backend" => asked.kafka = either("kafka", "nats")?,
            "--operator" => asked.operator = either("on", "off")?,
            "--groups" => {
                let known = GroupProtocol::ALL.into_iter().find(|protocol| protocol.as_str() == value);
                asked.groups = known.ok_or_else(|| expected("classic or consumer"))?;
            }
            "--server" => {
                let known = NatsVersion::ALL.into_iter().find(|version| version.tag() == value);
                asked.version = known.ok_or_else(|| expected("2.15 or 2.10"))?;
            }
            other => {
                let known = "--backend, --minutes, --seed, --rate, --operator, --server or --groups";
                return Err(format!("unknown argument {other:?}: expected {known}"));
            }
        }
    }
    Ok(asked)
}

//! Job of a comparison: the chosen workloads with the user's changes, or the user's own events.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventbus::{Envelope, Result};
use rand::Rng as _;

use super::{Keys, Payload, Plan, Shape, Work, Workload, all};
use crate::exit::Failure;
use crate::input;

/// The most messages of a run that warms up.
const WARM: usize = 500;

/// Which workloads.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Workloads")]
pub(crate) struct Choice {
    /// A workload, or a family of them (`pressure`); may be given several times. `--workload list` lists all
    #[arg(long, value_name = "NAME", conflicts_with_all = ["all", "input"])]
    pub(crate) workload: Vec<String>,
    /// All workloads; says beforehand how long they take
    #[arg(long, conflicts_with = "input")]
    all: bool,
    /// The user's own events instead: NDJSON as `publish` reads it
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    changes: Changes,
}

impl Choice {
    /// Returns whether the selection runs, since the user chose nothing.
    pub(crate) fn is_selection(&self) -> bool {
        self.workload.is_empty() && !self.all && self.input.is_none()
    }
}

/// What is changed in every workload.
#[derive(Debug, Default, clap::Args)]
struct Changes {
    /// So many messages instead of the workload's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "input")]
    messages: Option<u32>,
    /// So many bytes of payload
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=16_777_216), conflicts_with = "input")]
    payload: Option<u32>,
    /// So many keys, in turn; 0 for none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000_000), conflicts_with = "input")]
    keys: Option<u32>,
    /// Handlers take so long
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    handler_ms: Option<u64>,
    /// So many handlers at once in each member
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: Option<u32>,
    /// So many members of the group, each with a connection of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    members: Option<u32>,
    /// So many partitions of each topic
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    partitions: Option<u32>,
}

impl Changes {
    /// Applies the changes to a workload. Its name then tells them.
    fn apply(&self, mut workload: Workload) -> Workload {
        let mut told = String::new();
        let mut tell = |what: &str, value: u64| told += &format!(" {what}={value}");
        if let Some(messages) = self.messages {
            workload.seconds *= f64::from(messages) / workload.messages as f64;
            workload.messages = messages as usize;
            tell("messages", messages.into());
        }
        if let Some(payload) = self.payload {
            workload.payload = Payload::Bytes(payload as usize);
            tell("payload", payload.into());
        }
        if let Some(keys) = self.keys {
            workload.keys = if keys == 0 { Keys::None } else { Keys::Count(keys as usize) };
            workload.has_stuck_key &= keys > 0;
            tell("keys", keys.into());
        }
        if let Some(millis) = self.handler_ms {
            let pause = Duration::from_millis(millis);
            workload.work = if millis == 0 { Work::None } else { Work::Fixed(pause) };
            workload.has_stuck_key = false;
            tell("handler-ms", millis);
        }
        if let Some(concurrency) = self.concurrency {
            workload.handlers = Some(concurrency as usize);
            tell("concurrency", concurrency.into());
        }
        if let Some(members) = self.members {
            workload.members = members as usize;
            tell("members", members.into());
        }
        if let Some(partitions) = self.partitions {
            workload.partitions = Some(partitions);
            tell("partitions", partitions.into());
        }
        workload.name += &told;
        workload
    }
}

/// Workloads to run: fixed ones, or the user's events as one.
#[derive(Debug)]
pub(crate) struct WorkloadSet {
    pub(crate) workloads: Vec<Workload>,
    /// The user's events, if those are the one workload.
    events: Option<Vec<Envelope>>,
}

impl WorkloadSet {
    /// Reads the options. With `memory_only` the selection has long workloads, too.
    pub(crate) fn of(choice: &Choice, memory_only: bool) -> Result<Self, Failure> {
        if let Some(path) = &choice.input {
            let events = read_events(path)?;
            let workload = choice.changes.apply(of_input(events.len()));
            return Ok(Self { workloads: vec![workload], events: Some(events) });
        }
        let all = all();
        for name in &choice.workload {
            if !all.iter().any(|workload| workload.is_meant_by(name)) {
                let known: Vec<&str> = all.iter().map(|workload| workload.name.as_str()).collect();
                return Err(Failure::usage(format!("unknown workload {name:?}; known are: {}", known.join(", "))));
            }
        }
        let wanted = |workload: &Workload| {
            let named = choice.workload.iter().any(|name| workload.is_meant_by(name));
            let selected = workload.selected && (memory_only || !workload.is_long_on_a_broker());
            named || choice.all || choice.workload.is_empty() && selected
        };
        let workloads = all.into_iter().filter(wanted).map(|workload| choice.changes.apply(workload)).collect();
        Ok(Self { workloads, events: None })
    }

    /// Makes the messages of a run, on topics that only it uses.
    pub(crate) fn plan(&self, workload: &Workload) -> Result<Arc<Plan>> {
        // The name of a topic cannot have spaces.
        let family = workload.name.split(' ').next().unwrap_or_default();
        let prefix = format!("compare.{family}.{:08x}", rand::rng().random::<u32>());
        let plan = match &self.events {
            None => Plan::of(workload, &prefix)?,
            Some(events) => Plan::of_events(&events[..workload.messages.min(events.len())], &prefix)?,
        };
        Ok(Arc::new(plan))
    }
}

impl Workload {
    /// Returns a small variant of the workload. The first run on a backend pays for connections, caches and cold code.
    pub(crate) fn to_warm_up(&self) -> Self {
        let messages = self.messages.min(WARM);
        let work = if self.has_stuck_key { Work::None } else { self.work };
        Self { messages, work, has_stuck_key: false, ..self.clone() }
    }
}

fn read_events(path: &Path) -> Result<Vec<Envelope>, Failure> {
    let file = File::open(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let events: Result<Vec<Envelope>, _> = input::read(BufReader::new(file)).collect();
    let events = events.map_err(|broken| Failure::usage(format!("{}, {broken}", path.display())))?;
    if events.is_empty() {
        return Err(Failure::usage(format!("{}: no event in it", path.display())));
    }
    Ok(events)
}

fn of_input(messages: usize) -> Workload {
    Workload {
        name: "input".into(),
        about: "the user's own events, in their order, by one publisher".into(),
        messages,
        topics: 1,
        partitions: None,
        keys: Keys::None,
        payload: Payload::SmallJson,
        publishers: 1,
        work: Work::None,
        handlers: None,
        members: 1,
        in_memory: false,
        has_stuck_key: false,
        shape: Shape::Flow,
        selected: true,
        seconds: 0.2 + messages as f64 / 100_000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_is_told_by_the_name() {
        let burst = || all().into_iter().find(|workload| workload.name == "burst").unwrap();
        assert_eq!(Changes::default().apply(burst()).name, "burst");
        let changes = Changes { messages: Some(10), keys: Some(0), handler_ms: Some(3), ..Changes::default() };
        let changed = changes.apply(burst());
        assert_eq!(changed.name, "burst messages=10 keys=0 handler-ms=3");
        assert_eq!((changed.messages, changed.keys, changed.key_count()), (10, Keys::None, 0));
        assert_eq!(changed.work, Work::Fixed(Duration::from_millis(3)));
    }
}

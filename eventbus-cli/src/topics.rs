//! Command `eventbus topics`: the topics of a bus.

use std::time::Duration;

use eventbus::admin::TopicDescription;
use eventbus::{EventBus, OnExisting, Storage, TopicSpec};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::output::Form;
use crate::seconds;
use crate::target::{Target, leave};
use crate::voice::say;

/// List, describe, create and delete topics
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// What to do
    #[arg(value_enum)]
    action: Action,
    /// The topic; not for list
    #[arg(value_name = "TOPIC", required_if_eq_any = [("action", "describe"), ("action", "create"), ("action", "delete")])]
    topic: Option<String>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = r#"Examples:
  eventbus topics list --url nats://localhost:4222
  eventbus topics create orders --partitions 32 --replicas 3 --max-age 604800
  eventbus topics describe orders | jq .records

A line: {"topic":"orders","partitions":16,"records":1000,"bytes":…,"settings":{…}}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// All topics
    List,
    /// One topic, with the ends of its partitions
    Describe,
    /// Creates a topic; an existing one is an error
    Create,
    /// Deletes a topic with its records
    Delete,
}

/// What a topic is created with.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Partitions, the unit that the broker orders [default: 16]
    #[arg(long, help_heading = "For create", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    partitions: Option<u32>,
    /// Copies of the log in the cluster [default: 1]
    #[arg(long, help_heading = "For create", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replicas: Option<u32>,
    /// Age at which records may be removed [default: never]
    #[arg(long, help_heading = "For create", value_name = "SECS", value_parser = seconds::parse)]
    max_age: Option<Duration>,
    /// The most bytes kept [default: no limit]
    #[arg(long, help_heading = "For create", value_name = "N")]
    max_bytes: Option<u64>,
    /// The most records kept [default: no limit]
    #[arg(long, help_heading = "For create", value_name = "N")]
    max_messages: Option<u64>,
    /// Where records are kept [default: file]
    #[arg(long, help_heading = "For create", value_enum, value_name = "WHERE")]
    storage: Option<Where>,
    /// Takes a topic that exists as it is
    #[arg(long, help_heading = "For create")]
    if_missing: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Where {
    File,
    Memory,
}

impl Settings {
    fn spec(&self, topic: &str) -> TopicSpec {
        let existing = if self.if_missing { OnExisting::LeaveAlone } else { OnExisting::CreateOnly };
        let mut spec = TopicSpec::new(topic).on_existing(existing);
        if let Some(partitions) = self.partitions {
            spec = spec.partitions(partitions);
        }
        if let Some(replicas) = self.replicas {
            spec = spec.replicas(replicas);
        }
        if let Some(age) = self.max_age {
            spec = spec.max_age(age);
        }
        if let Some(bytes) = self.max_bytes {
            spec = spec.max_bytes(bytes);
        }
        if let Some(messages) = self.max_messages {
            spec = spec.max_messages(messages);
        }
        match self.storage {
            Some(Where::File) => spec.storage(Storage::File),
            Some(Where::Memory) => spec.storage(Storage::Memory),
            None => spec,
        }
    }
}

#[derive(Debug, Serialize)]
struct Line {
    topic: String,
    partitions: u32,
    records: u64,
    bytes: Option<u64>,
    settings: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<Vec<Log>>,
}

/// Log of a partition; without ends where no broker leads it.
#[derive(Debug, Serialize)]
struct Log {
    partition: u32,
    first: Option<u64>,
    end: Option<u64>,
}

const COLUMNS: &[&str] = &["topic", "partitions", "records", "bytes", "settings"];
const AT_ONCE: usize = 8;

impl Line {
    fn of(described: &TopicDescription) -> Result<Self, Failure> {
        let mut settings = serde_json::to_value(&described.spec).map_err(Failure::failed)?;
        if let Some(settings) = settings.as_object_mut() {
            // The line has the first two as fields of its own. The others are how a bus asks for a topic, not what the
            // topic is.
            for name in ["topic", "partitions", "on_existing", "after_refusal"] {
                settings.remove(name);
            }
        }
        Ok(Self {
            topic: described.spec.topic.clone(),
            partitions: described.spec.partitions,
            records: described.records,
            bytes: described.bytes,
            settings,
            incarnation: None,
            logs: None,
        })
    }

    fn with_logs(mut self, described: &TopicDescription) -> Self {
        let log = |(partition, log): (u32, &eventbus::backend::LogState)| {
            let known = !described.unavailable.contains(&partition);
            let position = |position: eventbus::Position| known.then(|| position.get());
            Log { partition, first: position(log.first), end: position(log.end) }
        };
        self.incarnation = Some(described.incarnation.clone());
        self.logs = Some((0..).zip(&described.partitions).map(log).collect());
        self
    }
}

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    let config = args.target.configuration()?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(async {
        let bus = args.target.connect(&config, |bus| bus).await?;
        let done = act(args, &*bus).await;
        leave(&bus).await;
        done.map(|()| Exit::Well)
    })
}

async fn act(args: &Args, bus: &dyn EventBus) -> Result<(), Failure> {
    let topic = args.topic.as_deref().unwrap_or_default();
    match args.action {
        Action::List => {
            let names = bus.list_topics().await?;
            let describe = |name: String| async move { Line::of(&bus.describe_topic(&name).await?) };
            let lines: Vec<Line> = stream::iter(names).map(describe).buffered(AT_ONCE).try_collect().await?;
            args.form.print(COLUMNS, &lines)
        }
        Action::Describe => {
            let described = bus.describe_topic(topic).await?;
            let line = Line::of(&described)?.with_logs(&described);
            let columns = [COLUMNS, &["incarnation"]].concat();
            args.form.print(&columns, &[line])
        }
        Action::Create => {
            let described = bus.ensure_topic(&args.settings.spec(topic)).await?;
            args.form.print(COLUMNS, &[Line::of(&described)?])
        }
        Action::Delete => {
            bus.delete_topic(topic).await?;
            say(format_args!("{topic} is deleted"));
            Ok(())
        }
    }
}

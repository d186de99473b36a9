//! Command `eventbus groups`: the groups of a topic.

use eventbus::admin::GroupDescription;
use eventbus::{EventBus, StartFrom};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::lag;
use crate::output::Form;
use crate::start;
use crate::target::{Target, leave};
use crate::voice::say;

/// List, describe, reset and delete the groups of a topic
///
/// reset and delete need a group without active members.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// What to do
    #[arg(value_enum)]
    action: Action,
    /// The topic
    #[arg(long, short, value_name = "TOPIC")]
    topic: String,
    /// The group; not for list
    #[arg(long, short, value_name = "GROUP", required_if_eq_any = [("action", "describe"), ("action", "reset"), ("action", "delete")])]
    group: Option<String>,
    /// For reset: earliest, latest, position:P=N[,P=N...] or time:RFC3339
    #[arg(long, value_name = "START", value_parser = start::parse, required_if_eq("action", "reset"))]
    from: Option<StartFrom>,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = r#"Examples:
  eventbus groups list --url nats://localhost:4222 --topic orders
  eventbus groups describe --topic orders --group billing | jq -r '.members[]'
  eventbus groups reset --topic orders --group billing --from time:2026-01-31T00:00:00Z

A line: {"group":"billing","members":["…"],"lag":23}; describe adds "partitions" as lag prints
them."#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// All groups that have progress or members
    List,
    /// One group, partition by partition
    Describe,
    /// Puts a group to another start
    Reset,
    /// Forgets a group's progress
    Delete,
}

#[derive(Debug, Serialize)]
struct Line {
    group: String,
    members: Vec<String>,
    lag: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<lag::Line>>,
}

const COLUMNS: &[&str] = &["group", "members", "lag"];
const AT_ONCE: usize = 4;

impl Line {
    fn of(group: &str, described: &GroupDescription) -> Self {
        let lag = described.partitions.iter().map(|partition| partition.lag).sum();
        Self { group: group.to_owned(), members: described.members.clone(), lag, partitions: None }
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
    let topic = &args.topic;
    let group = args.group.as_deref().unwrap_or_default();
    match args.action {
        Action::List => {
            let names = bus.list_groups(topic).await?;
            let describe = |name: String| async move {
                Ok::<_, Failure>(Line::of(&name, &bus.describe_group(topic, &name).await?))
            };
            let lines: Vec<Line> = stream::iter(names).map(describe).buffered(AT_ONCE).try_collect().await?;
            args.form.print(COLUMNS, &lines)
        }
        Action::Describe => {
            let described = bus.describe_group(topic, group).await?;
            let line = Line { partitions: Some(lag::lines(&described)), ..Line::of(group, &described) };
            args.form.print(COLUMNS, &[line])
        }
        Action::Reset => {
            let start = args.from.clone().unwrap_or_default();
            bus.reset_group(topic, group, &start).await?;
            say(format_args!("{group} starts elsewhere now"));
            Ok(())
        }
        Action::Delete => {
            bus.delete_group(topic, group).await?;
            say(format_args!("{group} is deleted"));
            Ok(())
        }
    }
}

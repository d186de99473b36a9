//! Command `eventbus lag`: how far behind a group is, partition by partition.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventbus::EventBus;
use eventbus::admin::GroupDescription;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::output::Form;
use crate::seconds;
use crate::target::{Target, leave};
use crate::voice::say;

/// Show how far a group is behind, partition by partition
///
/// committed is the next position to be handled; lag is a count of records, never a difference of positions.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The topic
    #[arg(long, short, value_name = "TOPIC")]
    topic: String,
    /// The group
    #[arg(long, short, value_name = "GROUP")]
    group: String,
    /// Looks again every so many seconds until it is interrupted
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = seconds::parse)]
    watch: Option<Duration>,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = r#"Examples:
  eventbus lag --url nats://localhost:4222 --topic orders --group billing --watch
  eventbus lag --topic orders --group billing | jq -s 'map(.lag) | add'

A line:
  {"partition":3,"committed":17,"end":40,"lag":23,"owner":"…","epoch":5,
  "oldest_unfinished_seconds":0.2}"#;

#[derive(Debug, Serialize)]
pub(crate) struct Line {
    partition: u32,
    committed: Option<u64>,
    end: u64,
    pub(crate) lag: u64,
    owner: Option<String>,
    epoch: Option<u64>,
    oldest_unfinished_seconds: Option<f64>,
}

const COLUMNS: &[&str] = &["partition", "committed", "end", "lag", "owner", "epoch", "oldest_unfinished_seconds"];

pub(crate) fn lines(group: &GroupDescription) -> Vec<Line> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let line = |partition: &eventbus::admin::GroupPartition| Line {
        partition: partition.partition,
        committed: partition.committed.as_ref().map(|committed| committed.next.get()),
        end: partition.log.end.get(),
        lag: partition.lag,
        owner: partition.owner.clone(),
        epoch: partition.committed.as_ref().map(|committed| committed.epoch),
        oldest_unfinished_seconds: partition.oldest.map(|millis| age(now, millis)),
    };
    group.partitions.iter().map(line).collect()
}

/// Returns a record's age in seconds, to the millisecond; 0 if the broker's clock is ahead.
fn age(now: f64, stored_at: u64) -> f64 {
    ((now * 1_000.0).round() - stored_at as f64).max(0.0) / 1_000.0
}

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    let config = args.target.configuration()?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(Failure::failed)?;
        let Some(bus) = args.target.connect_unless(&interrupt, &config, |bus| bus).await? else {
            return Ok(Exit::Interrupted);
        };
        let exit = tokio::select! {
            biased;
            () = interrupt.wait() => Ok(Exit::Interrupted),
            shown = show(args, &*bus) => shown,
        };
        leave(&bus).await;
        exit
    })
}

async fn show(args: &Args, bus: &dyn EventBus) -> Result<Exit, Failure> {
    let mut described = bus.describe_group(&args.topic, &args.group).await?;
    let Some(every) = args.watch else {
        args.form.print(COLUMNS, &lines(&described))?;
        return Ok(Exit::Well);
    };
    loop {
        args.form.clear()?;
        args.form.print(COLUMNS, &lines(&described))?;
        described = loop {
            tokio::time::sleep(every.max(Duration::from_millis(10))).await;
            match bus.describe_group(&args.topic, &args.group).await {
                Ok(described) => break described,
                Err(error) if error.is_retryable() => say(error),
                Err(error) => return Err(error.into()),
            }
        };
    }
}

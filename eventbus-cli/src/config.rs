//! Command `eventbus config`: the configuration in force, its schema and its reference.

use eventbus::config::{Origin, reference, schema};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Form, print};
use crate::target::Target;

/// Show the configuration in force, its schema, or its reference
///
/// A bus is configured by a file (--config), by variables of the environment (EVENTBUS_SUBSCRIBE__CONCURRENCY=64, section
/// and setting with two underlines between them) and by a URL (--url, else EVENTBUS_URL), a later one of these going before
/// an earlier one. check exits with 2 where that is no possible configuration; it does not connect.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to show
    #[arg(value_enum)]
    action: Action,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    form: Form,
}

const EXAMPLES: &str = r#"Examples:
  eventbus config check --config bus.toml
  EVENTBUS_BACKEND__PASSWORD=… eventbus config check --url nats://host?user=me |
    jq 'select(.origin != "default")'
  eventbus config schema >eventbus.schema.json

A line of check:
  {"section":"subscribe","setting":"concurrency","value":"64",
  "origin":"EVENTBUS_SUBSCRIBE__CONCURRENCY"}
Secrets are masked."#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// Every setting with its value and where that came from
    Check,
    /// The JSON Schema of a configuration file
    Schema,
    /// The page that documents every setting, as Markdown
    Reference,
}

#[derive(Debug, Serialize)]
struct Line {
    section: &'static str,
    setting: &'static str,
    value: String,
    origin: String,
}

const COLUMNS: &[&str] = &["section", "setting", "value", "origin"];

pub(crate) fn main(args: &Args) -> Result<Exit, Failure> {
    match args.action {
        Action::Check => check(args)?,
        Action::Schema => print(&format!("{:#}\n", schema()))?,
        Action::Reference => print(&reference())?,
    }
    Ok(Exit::Well)
}

fn check(args: &Args) -> Result<(), Failure> {
    let in_force = args.target.in_force()?;
    let (url, origin) = &in_force.backend;
    let first = Line { section: "backend", setting: "url", value: url.clone(), origin: named(origin) };
    let settings = in_force.settings().map(|setting| Line {
        section: setting.knob.section.as_str(),
        setting: setting.knob.name,
        value: setting.value.clone(),
        origin: named(&setting.origin),
    });
    args.form.print(COLUMNS, &std::iter::once(first).chain(settings).collect::<Vec<_>>())
}

fn named(origin: &Origin) -> String {
    match origin {
        Origin::Url => "--url".to_owned(),
        other => other.to_string(),
    }
}

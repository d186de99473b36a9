//! Environment of a comparison: the machine, the versions and the command. Figures say nothing without it.

use std::collections::BTreeMap;
use std::fs;

use eventbus::config::names_secret;
use serde::{Deserialize, Serialize};

/// Description of the machine, and of the versions that ran on it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) system: String,
    pub(crate) processor: String,
    /// Threads that this process may use at once.
    pub(crate) threads: usize,
    pub(crate) memory_bytes: Option<u64>,
    /// `release` or `debug`; the figures of a debug build say nothing.
    pub(crate) build: String,
    pub(crate) versions: BTreeMap<String, String>,
    /// Broker of each backend, and where it runs.
    pub(crate) backends: BTreeMap<String, String>,
}

/// Lock file that this program was built from.
const LOCK: &str = include_str!("../../../../Cargo.lock");

impl Environment {
    /// Describes this machine and this program.
    pub(crate) fn of(backends: BTreeMap<String, String>) -> Self {
        let mut versions = BTreeMap::from([("eventbus".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        for library in ["async-nats", "rdkafka", "rdkafka-sys", "tokio"] {
            versions.extend(locked(LOCK, library).map(|version| (library.to_owned(), version.to_owned())));
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            system: format!("{} {} {}", std::env::consts::OS, std::env::consts::ARCH, kernel.trim()),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            threads: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: field(&read("/proc/meminfo"), "MemTotal").and_then(kib),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            versions,
            backends,
        }
    }
}

/// Returns the value of a line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn kib(value: &str) -> Option<u64> {
    value.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    after.split('"').next()
}

/// Returns the command as it was called, ready for a shell, with the secrets of URLs masked.
pub(crate) fn command() -> String {
    let words = std::env::args().enumerate().map(|(place, word)| match place {
        0 => "eventbus".to_owned(),
        _ => quoted(&masked(&word)),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Quotes a word for a shell, if it needs that.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Masks the secrets of a URL: the login, and the parameters that hold one.
pub(crate) fn masked(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let (authority, parameters) = rest.split_once('?').map_or((rest, None), |(before, after)| (before, Some(after)));
    let hosts = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, hosts)| format!("***@{hosts}"));
    let mask = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if names_secret(name) => format!("{name}=***"),
        _ => parameter.to_owned(),
    };
    let parameters = parameters.map(|all| format!("?{}", all.split('&').map(mask).collect::<Vec<_>>().join("&")));
    format!("{scheme}://{hosts}{}", parameters.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_the_command() {
        assert_eq!(
            masked("nats://u:p@h:1,h:2?password=x&partitions=4"),
            "nats://***@h:1,h:2?password=***&partitions=4"
        );
        assert_eq!(masked("kafka://a:9092?sasl_password=p%26q"), "kafka://a:9092?sasl_password=***");
        assert_eq!(masked("kafka://a:9092?properties=ssl.key.password%3Dp"), "kafka://a:9092?properties=***");
        assert_eq!(masked("--url=nats://tok@h"), "--url=nats://***@h");
        assert_eq!(masked("burst"), "burst");
    }

    #[test]
    fn words_are_safe_for_a_shell() {
        assert_eq!(quoted("memory://a?b=1&c"), "'memory://a?b=1&c'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("--rounds=3"), "--rounds=3");
    }

    #[test]
    fn versions_are_those_that_are_locked() {
        assert!(locked(LOCK, "tokio").unwrap().starts_with("1."));
        assert_eq!(locked(LOCK, "no-such-package"), None);
    }
}

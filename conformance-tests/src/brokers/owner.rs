//! The owner of a run's containers.

use std::path::Path;

/// The variable that names the owner to processes that a runner starts.
const VARIABLE: &str = "EVENTBUS_TEST_OWNER";

/// The identity of a process, `PID:START`: START is the time at which it began, in clock ticks since the host's start.
pub(super) fn identity(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The program's name may hold spaces and parentheses: the fields begin behind the last one.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid}:{started}"))
}

/// The owner of the containers that this process starts.
pub(super) fn own() -> String {
    if let Ok(named) = std::env::var(VARIABLE) {
        return named;
    }
    let runner = std::env::var_os("NEXTEST").map(|_| std::os::unix::process::parent_id());
    let pid = runner.unwrap_or_else(std::process::id);
    identity(pid).unwrap_or_else(|| format!("{pid}:?"))
}

/// Whether this process itself is the owner, so that the end of it is the end of the run.
pub(super) fn is_this_process() -> bool {
    own() == identity(std::process::id()).unwrap_or_default()
}

/// Whether the owner still runs.
pub(super) fn lives(owner: &str) -> bool {
    let pid = owner.split(':').next().and_then(|pid| pid.parse().ok());
    pid.and_then(identity).is_some_and(|found| found == owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_of_the_same_number_is_taken_for_the_owner() {
        let own = identity(std::process::id()).unwrap();
        assert!(lives(&own));
        assert!(!lives(&format!("{}:1", std::process::id())));
        assert!(!lives("4294967295:1"));
        assert!(!lives(""));
    }
}

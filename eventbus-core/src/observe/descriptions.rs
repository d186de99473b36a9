//! Descriptions of the metrics, which a recorder shows beside them. `docs/operations.md` has the same list.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// The counters: name and description.
const COUNTERS: [(&str, &str); 12] = [
    ("messaging.client.sent.messages", "publishes confirmed"),
    ("eventbus.publish.failed", "publishes refused, overloaded, sealed"),
    ("messaging.client.consumed.messages", "attempts that succeeded"),
    ("eventbus.handle.failed", "attempts that failed"),
    ("eventbus.handle.deferred", "attempts whose handler asked to wait"),
    ("eventbus.handle.dead_lettered", "envelopes given up to the dead-letter topic"),
    ("eventbus.handle.skipped", "envelopes given up and skipped"),
    ("eventbus.handle.copies_dropped", "second copies that readers left out"),
    ("eventbus.handle.misplaced", "records in another partition than their key's"),
    ("eventbus.handle.replays_ignored", "dead letters that were replayed to another group"),
    ("eventbus.handle.data_lost", "times that unhandled records were removed"),
    ("eventbus.partition.stalls", "reports of an old unfinished envelope"),
];

/// The gauges: name and description.
const GAUGES: [(&str, &str); 2] = [
    ("eventbus.operations.retrying", "operations that are tried again for longer than they should be"),
    ("eventbus.handle.suspended", "1 while handling is suspended, because what the handlers need is away"),
];

/// The histograms of times: name and description.
const TIMES: [(&str, &str); 2] = [
    ("messaging.client.operation.duration", "time from the call of a publish to its outcome"),
    ("messaging.process.duration", "time of one attempt"),
];

/// Describes all metrics to the recorder that is installed.
pub(crate) fn describe_metrics() {
    for (name, text) in COUNTERS {
        describe_counter!(name, Unit::Count, text);
    }
    for (name, text) in GAUGES {
        describe_gauge!(name, Unit::Count, text);
    }
    for (name, text) in TIMES {
        describe_histogram!(name, Unit::Seconds, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_missing_from_the_list_for_people() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
        let page = std::fs::read_to_string(path).unwrap();
        for (name, _) in COUNTERS.iter().chain(&GAUGES).chain(&TIMES) {
            assert!(page.contains(&format!("`{name}`")), "docs/operations.md does not tell of {name}");
        }
    }
}

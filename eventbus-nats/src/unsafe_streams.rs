//! Streams that are no topics, whatever their labels say: they lose records before a group has read them, or move them.
//!
//! Invariant: a setting that takes records out of the middle of a log is refused (S8). All partitions share one
//! sequence, so a hole in one of them looks like records of others.

use std::collections::HashSet;

use eventbus_core::Result;
use eventbus_core::toolkit::settings::unsafe_setting;
use serde_json::{Map, Value};

/// Settings that are refused where they are on, what was expected, and why.
const REFUSED: &[(&str, &str)] = &[
    ("no_ack", "expected false, a publish that is never confirmed cannot be put in order"),
    (
        "max_msgs_per_subject",
        "expected no limit, a subject is a partition, and the limit takes records out of the middle of the log",
    ),
    ("allow_msg_ttl", "expected false, a record with a time to live leaves the middle of the log unread"),
    ("subject_delete_marker_ttl", "expected none, markers are no records, and come with a time to live of records"),
    ("allow_rollup_hdrs", "expected false, a roll-up removes all earlier records of its partition"),
    ("allow_msg_counter", "expected false, a counter takes no envelopes"),
    ("subject_transform", "expected none, it moves records to other subjects than their partitions'"),
    ("mirror", "expected none, a mirror takes no publishes"),
];

/// Checks the settings of a stream.
///
/// # Errors
/// `UnsafeConfig`, naming the setting, its value and why it is refused.
pub(crate) fn check(settings: &Map<String, Value>) -> Result<()> {
    let text = |name: &str| settings.get(name).and_then(Value::as_str).unwrap_or_default();
    if !matches!(text("retention"), "limits" | "") {
        let why = "expected limits, a work queue deletes what a group has not read";
        return Err(unsafe_setting("retention", why).with("given", text("retention")));
    }
    for (name, why) in REFUSED {
        if let Some(value) = settings.get(*name).filter(|value| is_on(value)) {
            return Err(unsafe_setting(name, why).with("given", value));
        }
    }
    Ok(())
}

fn is_on(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_i64().is_none_or(|number| number > 0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(_) => true,
    }
}

/// Checks that a stream takes the subject of every partition.
///
/// # Errors
/// `UnsafeConfig`, naming the first subject that has no place in it.
pub(crate) fn check_subjects(
    settings: &Map<String, Value>,
    mut partitions: impl Iterator<Item = String>,
) -> Result<()> {
    let taken = settings.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let (wild, plain): (Vec<&str>, Vec<&str>) =
        taken.iter().filter_map(Value::as_str).partition(|subject| subject.contains(['*', '>']));
    let plain: HashSet<&str> = plain.into_iter().collect();
    let taken = |subject: &str| plain.contains(subject) || wild.iter().any(|wild| fits(wild, subject));
    match partitions.find(|subject| !taken(subject)) {
        None => Ok(()),
        Some(missing) => {
            let why = format!("expected {missing} among them, what is published to this partition has no place");
            Err(unsafe_setting("subjects", why).with("subject", missing))
        }
    }
}

/// Whether a subject fits a pattern with `*` for a token and `>` for the rest.
fn fits(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use eventbus_core::ErrorKind;
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_setting_that_takes_records_out_of_the_middle_is_refused_by_name() {
        let off = json!({
            "retention": "limits", "max_msgs_per_subject": -1, "allow_msg_ttl": false, "allow_rollup_hdrs": false,
            "no_ack": false, "mirror": null, "subject_delete_marker_ttl": 0,
        });
        assert!(check(&settings(off)).is_ok() && check(&Map::new()).is_ok());
        for (name, value) in [
            ("retention", json!("workqueue")),
            ("retention", json!("interest")),
            ("no_ack", json!(true)),
            ("max_msgs_per_subject", json!(100)),
            ("allow_msg_ttl", json!(true)),
            ("subject_delete_marker_ttl", json!(1_000_000_000)),
            ("allow_rollup_hdrs", json!(true)),
            ("allow_msg_counter", json!(true)),
            ("subject_transform", json!({ "src": ">", "dest": "a.>" })),
            ("mirror", json!({ "name": "other" })),
        ] {
            let error = check(&settings(json!({ name: value }))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsafeConfig);
            assert!(error.context().any(|(what, which)| (what, which) == ("setting", name)), "{error}");
        }
    }

    #[test]
    fn a_partition_without_a_subject_is_told() {
        let of = |subjects: Value| {
            let names = (0..3).map(|partition| format!("e.t.p{partition:02}"));
            check_subjects(&settings(json!({ "subjects": subjects })), names)
        };
        for taken in [json!(["e.t.*"]), json!(["e.>"]), json!([">"]), json!(["e.t.p00", "e.t.p01", "e.t.p02", "x"])] {
            assert!(of(taken.clone()).is_ok(), "{taken}");
        }
        for (lacking, missing) in [
            (json!(["e.t.p00", "e.t.p02"]), "e.t.p01"),
            (json!(["e.t"]), "e.t.p00"),
            (json!(["e.t.p00.>", "e.*"]), "e.t.p00"),
            (json!([]), "e.t.p00"),
        ] {
            let error = of(lacking).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsafeConfig);
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}

//! `verify` on a broker.

use crate::world::World;

/// Returns the beginning of all names of a run, as the run said it.
fn names(said: &str) -> String {
    let begin = said.find("eventbus-verify-").unwrap_or_else(|| panic!("no name in {said}"));
    said[begin..].split_whitespace().next().unwrap().to_owned()
}

pub(crate) fn cases_pass_and_leave_nothing_behind(world: &World) {
    let arguments = ["--case", "p0::order::per_key_order", "--case", "p0::members", "--case", "p2::answers::topics"];
    let ran = world.run("verify", &arguments).ends_with(0);
    let lines = ran.lines();
    let outcome = |case: &str| lines.iter().find(|line| line["case"] == case).unwrap().clone();
    for case in ["p0::order::per_key_order", "p0::members::planned_hand_over", "p2::answers::topics"] {
        let line = outcome(case);
        assert!(line["outcome"] == "pass" && line["seconds"].is_number() && line.get("reason").is_none(), "{line}");
    }
    let skipped = outcome("p0::members::killed_mid_key");
    assert_eq!((&skipped["outcome"], &skipped["reason"]), (&"skip".into(), &"cannot kill a process".into()));
    assert_eq!(world.held(&names(&ran.stderr)), [""; 0], "something was left behind");
}

pub(crate) fn an_interrupted_run_leaves_nothing_behind(world: &World) {
    let mut verify = world.start("verify", &["--jobs", "4", "--case", "p0::order", "--case", "p1::flow"]);
    // The first outcome shows that other cases are running.
    verify.take(1);
    verify.signal("-INT");
    let (code, said) = verify.wait();
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(world.held(&names(&said)), [""; 0], "something was left behind");
}

//! Tests of one case on one provider, each with its place in the matrix.

use std::sync::{Arc, Mutex};

use conformance_tests::suite::{Ability, Case, Matrix, Outcome, Provider, RunOptions, run_case};
use libtest_mimic::Trial;

/// Makes the test of one case. The test is ignored if abilities are missing and `may_miss` accepts all of these;
/// otherwise it runs, and a SKIP fails.
pub(crate) fn trial(
    case: &'static Case,
    provider: &Arc<dyn Provider>,
    matrix: &Arc<Mutex<Matrix>>,
    options: RunOptions,
    may_miss: impl Fn(&Ability) -> bool,
) -> Trial {
    let abilities = provider.abilities();
    let missing: Vec<_> = case.needs.iter().copied().filter(|need| !abilities.contains(need)).collect();
    let skipped = !missing.is_empty() && missing.iter().all(may_miss);
    if skipped {
        matrix.lock().unwrap().enter(case, provider.name(), Outcome::Skip(missing));
    }
    let name = format!("{}::{}", provider.name().replace(' ', "-"), case.name.replace(' ', ""));
    let (matrix, provider) = (matrix.clone(), provider.clone());
    let run = move || {
        let outcome = run_case(case, &provider, &options);
        matrix.lock().unwrap().enter(case, provider.name(), outcome.clone());
        match outcome {
            Outcome::Pass => Ok(()),
            Outcome::Fail { message, .. } => Err(message.into()),
            other => Err(format!("nothing may be skipped here: {other}").into()),
        }
    };
    Trial::test(name, run).with_ignored_flag(skipped)
}

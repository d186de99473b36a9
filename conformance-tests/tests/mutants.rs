//! Mutants: the rule that names each one catches it, and the seeds that caught it pass without it.

use std::sync::atomic::{AtomicUsize, Ordering};

use conformance_tests::mutants::{CaughtBy, REGISTRY, hunt};
use conformance_tests::oracle::Rule;
use conformance_tests::simulation::{Options, simulate};

/// Number of schedules within which a mutant must be caught.
const MOST: u64 = 1_500;

#[test]
fn every_mutant_is_caught_by_the_rule_that_names_it() {
    let only = std::env::var("EVENTBUS_MUTANT").ok();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut lines = Vec::new();
        while let Some((mutant, by)) = REGISTRY.get(next.fetch_add(1, Ordering::Relaxed)) {
            if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
                continue;
            }
            let (rule, steady) = match by {
                CaughtBy::Rule(rule) => (*rule, false),
                CaughtBy::Steady(rule) => (*rule, true),
                _ => {
                    lines.push((format!("{mutant:?}"), format!("{by:?}"), true));
                    continue;
                }
            };
            let Some(caught) = hunt(*mutant, rule, steady, 1, MOST) else {
                lines.push((format!("{mutant:?}"), format!("{rule} NEVER, in {MOST} schedules"), false));
                continue;
            };
            let options = if steady { Options::default().steady() } else { Options::default() };
            let legal = (1..=caught.schedules).all(|seed| simulate(seed, options).is_legal());
            let verdict = if legal { "which pass unbroken" } else { "which are REFUTED UNBROKEN" };
            let line = format!("{rule} within {} schedules, {verdict}", caught.schedules);
            lines.push((format!("{mutant:?}"), line, legal));
        }
        lines
    };
    let mut lines = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    lines.sort();
    for (mutant, line, _) in &lines {
        println!("{mutant:<24} {line}");
    }
    let missed: Vec<_> = lines.iter().filter(|(.., caught)| !caught).map(|(mutant, ..)| mutant).collect();
    assert!(missed.is_empty(), "not caught, or refuted unbroken: {missed:?}");
}

#[test]
fn every_rule_has_a_mutant() {
    for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::Malformed) {
        let named = |by: &CaughtBy| matches!(by, CaughtBy::Rule(of) | CaughtBy::Steady(of) if *of == rule);
        assert!(REGISTRY.iter().any(|(_, by)| named(by)), "{rule} has no mutant");
    }
}

//! The whole suite on real servers: every case on every provider, drawn scripts compared with memory, and the matrix.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conformance_tests::brokers::{shut_down, sweep};
use conformance_tests::suite::{
    Abilities, Ability, CASES, Matrix, MemoryKind, MemoryProvider, Provider, RunOptions, drawn_script,
};
use libtest_mimic::{Arguments, Trial};

use crate::trials::trial;

/// Number of cases at once, unless the arguments say otherwise.
const AT_ONCE: usize = 8;

/// Number of drawn scripts that are compared with memory.
const SCRIPTS: u64 = 3;

/// Abilities that would harm a server that somebody else runs.
const SPARED: [Ability; 2] = [Ability::RestartBroker, Ability::Credentials];

/// Runs one script on memory and on the server: each key must have the same outcomes in the same order.
fn is_as_on_memory(provider: &Arc<dyn Provider>, seed: u64) -> Result<(), String> {
    let on = |provider: Arc<dyn Provider>| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let name = provider.name().to_owned();
        let patience = Duration::from_secs(90);
        let ended = runtime.block_on(async { tokio::time::timeout(patience, drawn_script(provider, seed)).await });
        runtime.shutdown_background();
        let ended = ended.map_err(|_| format!("seed {seed} on {name}: hung"))?;
        ended.map_err(|error| format!("seed {seed} on {name}: {error}"))
    };
    let memory = on(Arc::new(MemoryProvider::new(MemoryKind::Streams).on_real_clock()))?;
    let server = on(provider.clone())?;
    for (what, expected) in &memory {
        if server.get(what) != Some(expected) {
            let found = server.get(what);
            return Err(format!("seed {seed}: {what:?} is {found:?} on {}, {expected:?} on memory", provider.name()));
        }
    }
    if memory.len() == server.len() { Ok(()) } else { Err(format!("seed {seed}: other keys have outcomes")) }
}

fn run(
    arguments: &Arguments,
    providers: &[Arc<dyn Provider>],
    running: bool,
    missing: &[Ability],
) -> Result<ExitCode, String> {
    let options = RunOptions::from_env(1)?;
    if !arguments.list && !running {
        sweep().map_err(|error| error.to_string())?;
    }
    let matrix = Matrix::new(providers.iter().map(|provider| provider.name().to_owned()).collect());
    let matrix = Arc::new(Mutex::new(matrix));
    let spared = SPARED.into_iter().filter(|_| running);
    let may_miss: Abilities = missing.iter().copied().chain(spared).collect();
    let mut trials = Vec::new();
    for case in CASES {
        let may_miss = |missing: &Ability| may_miss.contains(missing);
        trials.extend(providers.iter().map(|provider| trial(case, provider, &matrix, options, may_miss)));
    }
    for provider in providers {
        let name = format!("{}::one_script_ends_otherwise_than_on_memory", provider.name().replace(' ', "-"));
        let provider = provider.clone();
        let seeds = options.seed..options.seed + SCRIPTS;
        trials.push(Trial::test(name, move || {
            Ok(seeds.clone().try_for_each(|seed| is_as_on_memory(&provider, seed))?)
        }));
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    if !arguments.list {
        println!("{}", matrix.lock().unwrap());
        if !running {
            shut_down().map_err(|error| error.to_string())?;
        }
    }
    Ok(conclusion.exit_code())
}

/// Runs the suite. `providers` are those of containers, or of a server that runs already (then with `true`); `missing`
/// are abilities that no server of this kind has.
pub(crate) fn main(
    providers: impl FnOnce() -> Result<(Vec<Arc<dyn Provider>>, bool), String>,
    missing: &[Ability],
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let ended = providers().and_then(|(providers, running)| run(&arguments, &providers, running, missing));
    ended.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

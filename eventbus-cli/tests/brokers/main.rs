//! Tests of the program against real brokers: every test on every broker.
//!
//! The servers run in containers, or `EVENTBUS_TEST_NATS_URL` and `EVENTBUS_TEST_KAFKA_URL` name running ones. Each
//! test has its own prefix of names, and removes what it made.
#![allow(clippy::unwrap_used)]

mod history;
mod kills;
mod letters;
mod looking;
#[path = "../program/mod.rs"]
mod program;
mod publishing;
mod subscribing;
mod verifying;
mod world;

use std::process::ExitCode;

use conformance_tests::brokers::{shut_down, sweep};
use libtest_mimic::{Arguments, Failed, Trial};

use world::{Broker, World, brokers};

type Test = (&'static str, fn(&World));

macro_rules! tests {
    ($($module:ident :: { $($test:ident),* $(,)? })*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($test)), $module::$test as fn(&World)),)*)*]
    };
}

const TESTS: &[Test] = tests! {
    publishing::{
        what_is_published_is_printed_in_order,
        an_existing_topic_keeps_its_partitions,
        an_interrupted_publish_reports_what_it_read,
        a_record_that_the_broker_does_not_take_is_refused,
        what_the_broker_never_answered_is_told_as_unknown,
        what_a_full_stream_refuses_is_told_while_it_waits_and_refused_at_the_deadline,
        what_is_printed_and_published_again_is_a_copy_of_the_topic,
    }
    subscribing::{
        so_many_lines_and_nothing_finished_beyond,
        a_group_starts_where_it_is_told,
        a_failing_command_is_tried_again_and_its_envelope_dead_lettered,
        skip_and_stop,
        a_command_that_takes_too_long_is_killed_with_all_it_started,
        an_interrupt_lets_the_command_finish,
        a_deadline_ends_the_command_without_an_attempt,
        a_closed_pipe_is_no_failed_attempt,
        two_members_share_the_work,
        a_closed_output_acknowledges_nothing,
        a_topic_that_is_made_later_is_waited_for,
    }
    looking::{
        lag_counts_records,
        lag_is_watched_until_an_interrupt,
        topics_are_made_shown_and_removed,
        groups_are_shown_moved_and_forgotten,
    }
    letters::{
        what_was_given_up_comes_back_in_order,
        a_group_without_dead_letters_has_none,
    }
    verifying::{
        cases_pass_and_leave_nothing_behind,
        an_interrupted_run_leaves_nothing_behind,
    }
    kills::{
        a_killed_publish_leaves_a_prefix_of_each_key,
        a_killed_subscription_resumes_right_after,
    }
    history::{
        the_fold_is_right_with_two_members_and_kills,
        another_url_is_all_that_another_broker_takes,
    }
};

fn trial((name, test): Test, broker: &Broker) -> Trial {
    let broker = broker.clone();
    Trial::test(format!("{}::{name}", broker.name), move || {
        let world = broker.world().map_err(Failed::from)?;
        test(&world);
        Ok(())
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most tests only wait, so four of them run at once.
    arguments.test_threads.get_or_insert(4);
    if !arguments.list
        && let Err(error) = sweep()
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let brokers = brokers();
    // A proxy is of no use if the broker tells its clients its own address, as Kafka does.
    // Only JetStream has streams that take no more.
    let own = |name: &str| name.ends_with("told_as_unknown") || name.contains("a_full_stream");
    let fits = |(name, _): &&Test, broker: &Broker| broker.name != "kafka" || !own(name);
    let pairs = TESTS.iter().flat_map(|test| brokers.iter().map(move |broker| (test, broker)));
    let trials = pairs.filter(|(test, broker)| fits(test, broker)).map(|(test, broker)| trial(*test, broker)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        shut_down().unwrap();
    }
    conclusion.exit_code()
}

//! The registry: the one list of all cases.

use super::ability::Ability;
use super::case::{Case, CaseRuntime, Priority};
use super::{odd, p0, p1, p2};

macro_rules! cases {
    ($($priority:ident { $(
        $number:literal $($part:ident)::+ $(($given:ident))? $([$($need:ident),*])? $(on $place:ident)? : $title:literal;
    )* })*) => {
        /// Every case of the contract, in its order.
        pub static CASES: &[Case] = &[$($(
            Case {
                priority: Priority::$priority,
                number: $number,
                name: stringify!($($part)::+),
                title: $title,
                needs: &[$($(Ability::$need),*)?],
                place: cases!(@place $($place)?),
                run: |run| Box::pin($($part)::+(run $(, $given)?)),
            },
        )*)*];
    };
    (@place) => { CaseRuntime::Anywhere };
    (@place $place:ident) => { CaseRuntime::$place };
}

/// Returns the needs of the case whose name ends with `name`, for the case about other cases.
fn needs_of(name: &str) -> Option<&'static [Ability]> {
    CASES.iter().find(|case| case.name.ends_with(name)).map(|case| case.needs)
}

cases! {
    P0 {
        "1" p0::mutants::every_defect_is_caught(needs_of) [RefusePublish, LoseConfirmation, TopicDown, KillProcess] on Large: "the cases can fail: each of 22 defects is caught by the case named for it";
        "2" p0::order::per_key_order: "per-key order, 120 keys, several partitions";
        "3a" p0::order::random_handler_times: "no overlap within a key, handlers of random times";
        "3b" p0::order::blocking_barrier on Threads: "two handlers that meet at a blocking barrier both pass";
        "4a" p0::order::failures_hold_their_keys_only: "as many failing keys as handlers at once: the others go on";
        "4b" p0::order::failure_holds_no_slot: "a failing key and one handler at once: the others go on";
        "5a" p0::publish::refusal_seals_until_seen [RefusePublish]: "one of several queued is refused: suffix not stored, key sealed until it is seen";
        "5b" p0::publish::refusal_seals_until_resumed [RefusePublish]: "the same, sealed until it is resumed";
        "5c" p0::publish::refusal_seals_nothing_where_told [RefusePublish]: "the same on a topic that goes on";
        "6" p0::publish::lost_confirmation [LoseConfirmation]: "acknowledgement lost after the store: one copy, order kept";
        "7" p0::publish::cut_between_publishes [CutConnection]: "connection cut between publishes in flight: no reorder, no loss";
        "8" p0::broker::restarted_mid_stream [RestartBroker]: "broker killed and restarted mid-stream, both sides live";
        "9a" p0::members::frozen_past_its_session [FreezeProcess]: "member frozen past its session, then thawed";
        "9b" p0::members::cut_off_past_its_session [CutConnection]: "member cut off past its session, then healed";
        "10" p0::members::killed_mid_key [KillProcess]: "member killed mid-key: each key resumes at its first unfinished";
        "11" p0::members::slower_than_the_session: "handler slower than the broker's time-outs: nothing comes twice";
        "12" p0::members::planned_hand_over: "a second member joins and leaves mid-processing: nothing comes twice";
        "13" p0::members::taken_and_given_back [TakePartition]: "partition taken and given back while a handler runs";
        "14" p0::churn::soak [KillProcess, FreezeProcess, ExpireMember, TakePartition]: "churn soak";
        "15a" p0::progress::fast_tail_is_not_repeated [KillProcess]: "slow head, fast tail, kill: what is committed is not repeated";
        "15b" p0::progress::cut_note_repeats_a_suffix [KillProcess] on Large: "the same with 50 000 holes: the note is cut, a suffix repeated";
        "16" p0::failure::park [Park]: "Park";
        "17a" p0::failure::dead_letter: "DeadLetter: exactly the poison one moves, with all that it was";
        "17b" p0::failure::dead_letter_at_once: "a failure for good moves without further attempts";
        "17c" p0::failure::dead_letter_topic_down [TopicDown]: "dead-letter topic down: the key waits for the write, the others do not";
        "17d" p0::failure::dead_letter_with_budgets_full [LoseConfirmation]: "budgets full: dead letters have a reserve";
        "17e" p0::failure::dead_letter_too_large [LimitRecords]: "too large to wrap: a reference";
        "17f" p0::failure::dead_letter_then_killed [KillProcess]: "killed between write and commit: readers see one letter";
        "17g" p0::failure::dead_letter_by_group: "two groups are independent";
        "17h" p0::failure::skipped: "Skip: counted, and the key goes on";
        "17i" p0::failure::stopped: "Stop: nothing past it acknowledged; started again, it goes on where it stood";
        "17j" p0::outage::all_handlers_fail: "an outage of what all handlers need: suspended, nothing is given up";
        "18" p0::shutdown::drained: "shutdown drains; queued ones come back in order";
        "19" p0::shutdown::deadline_passes: "shutdown deadline passes: abandoned work is named and delivered again";
        "20" p0::config::unsafe_is_refused: "unsafe configurations are refused by name";
        "21" p0::churn::duplicates_are_bounded [KillProcess, ExpireMember, TakePartition, CutConnection, RestartBroker]: "duplicates after each fault are bounded";
        "22" p0::broker::leader_changes [ChangeLeader]: "leader or coordinator change under load";
        "23" p0::broker::confirmed_survives [RestartBroker]: "what is confirmed survives a kill of the broker";
        "24" p0::order::resized_with_work_queued: "handlers at once changed with work queued";
        "25" p0::order::prefetched_do_not_overtake: "one fails with later ones prefetched: they do not overtake";
        "26a" p0::log::recreated_topic_stops [Recreate, KeepProgress]: "topic recreated: noticed, by default it stops";
        "26b" p0::log::recreated_topic_begins_again [Recreate]: "topic recreated: told so, it begins again";
        "26c" p0::log::recreated_under_a_member [Recreate]: "topic recreated under a running member";
        "26d" p0::log::shortened_log_stops: "watermark above the log's end";
        "27" p0::publish::held_past_the_duplicate_window [HoldPublish]: "one publish held past the duplicate window";
        "28" p0::publish::black_holed_key [LoseConfirmation, BlackHoleKey]: "one key's confirmations black-holed: all others go on";
        "29a" p0::log::seek_back_handles_all_again: "seek back: all handled again, none dropped as a copy";
        "29b" p0::log::copies_across_a_kill [StoreCopy, KillProcess]: "second copies before and after a kill";
    }
    P1 {
        "a1" p1::flow::hot_key: "a hot key starves nobody";
        "a2" p1::flow::stuck_handler: "bounded memory with a stuck handler; it stalls visibly, others go on";
        "a3" p1::flow::concurrency_limit: "concurrency reaches its limit and never passes it";
        "a4" p1::flow::paused_and_resumed: "paused, nothing starts; resumed, it goes on where it stood";
        "a5" p1::flow::stall_is_reported: "a stall is detected and reported with its key";
        "a6" p1::flow::lag_is_right: "lag is right";
        "b1" p1::keys::odd_keys: "keys that are empty, 1 KiB, unicode, or absent";
        "b2" p1::keys::same_key_in_two_topics: "the same key in two topics is two keys";
        "b3" p1::keys::equal_ids: "equal ids, from two sources and from one, are all stored";
        "c1" p1::publishing::confirmations_in_any_way: "confirmations awaited in reverse, never polled, dropped at every stage";
        "c2" p1::publishing::closed_in_flight [LoseConfirmation]: "closed with publishes in flight: each resolves";
        "c3" p1::publishing::dropped_in_flight [LoseConfirmation]: "the last handle dropped with publishes in flight: the hook hears of each";
        "c4" p1::publishing::batch_prefixes [RefusePublish]: "a batch reports its stored prefix per key";
        "c5" p1::publishing::edge_of_the_window [LoseConfirmation]: "the edge of the duplicate window";
        "d1" p1::handlers::publishes_to_its_own_key: "a handler that publishes to its own topic and key";
        "d2" p1::handlers::attempts_and_headers: "attempts are counted, nothing else changes by a retry";
        "d3" p1::handlers::panicking_hook: "a hook that itself panics hurts nobody";
        "d4" p1::handlers::undecodable [StoreRaw]: "an undecodable record goes to the policy, bytes kept, in its key's line";
        "d5" p1::handlers::panicking_handler: "a panic does not kill the lane";
        "d6" p1::handlers::panics_in_odd_places: "panics in the call, in a drop and in an error's text";
        "d7" p1::handlers::handler_timeout: "a handler's time-out is a failed attempt";
        "e1" p1::life::started_again: "starting again after stop";
        "e2" p1::life::concurrent_close: "concurrent close";
        "e3" p1::life::close_inside_a_handler: "close inside a handler";
        "e4" p1::life::groups_are_independent: "groups are independent";
        "e5" p1::life::replays: "replay from a position, a time, the end";
        "f1" p1::retention::loss_stops [Truncate]: "data loss by retention is reported, and stops";
        "f2" p1::retention::loss_continues [Truncate]: "data loss is reported, and told so it goes on";
        "f3" p1::retention::idle_beside_busy [Truncate]: "an idle partition beside a busy one under retention is no loss";
        "gA1" odd::records::value_not_text [StoreRaw]: "a header's value that is not text is left out";
        "gA2" odd::records::attribute_not_text [StoreRaw]: "a needed attribute that is not text: undecodable, bytes kept";
        "gA3" odd::records::later_specification [StoreRaw]: "an event of a later specification: undecodable";
        "gA4" odd::records::nothing_at_all [StoreRaw]: "no key, no headers, no payload: an event";
        "gA5" odd::records::thousands_of_headers [StoreRaw]: "thousands of headers stop nothing";
        "gA6" odd::records::key_too_long [StoreRaw]: "a key longer than any of a bus: undecodable";
        "gA7" odd::records::names_that_differ_in_case [StoreRaw]: "headers that differ in case read the same each time";
        "gA8" odd::records::document_without_content_type [StoreRaw]: "a structured event without a content type";
        "gA9" odd::records::stamps_in_odd_forms [StoreRaw]: "stamps in odd forms make no copies";
        "gA10" odd::records::many_in_a_row [StoreRaw]: "thirty undecodable in a row: dead letters in order";
        "gA11" odd::records::stops_and_goes_on [StoreRaw]: "undecodable under Stop: named; skipped, it goes on behind it";
        "gA12" odd::told::skipped [StoreRaw]: "undecodable under Skip: told with its place";
        "gA13" odd::told::misplaced [StoreRaw]: "a record in another partition than its key's: handled and told";
        "gA14" odd::told::among_dead_letters [StoreRaw]: "garbage among dead letters hides none";
        "gA15" odd::headers::name_not_text [StoreBytes]: "a header's name that is not text";
        "gA16" odd::headers::name_empty [StoreBytes]: "a header without a name";
        "gA17" odd::headers::name_with_spaces [StoreBytes]: "a header's name with spaces";
        "gA18" odd::headers::value_with_carriage_return [StoreBytes]: "a header's value with a bare carriage return";
        "gA19" odd::headers::value_with_line_end [StoreBytes]: "a header's value with a line end";
        "gB1" odd::losses::purged_under_a_member [Truncate, CutConnection]: "purged under a member that goes on: each loss told";
        "gB2" odd::losses::purge_stops_a_member [Truncate, CutConnection]: "purged under a member: its subscription ends";
        "gB3" odd::losses::handled_head_purged [Truncate]: "what was handled is purged again and again: no loss";
        "gB4" odd::losses::one_record_removed [RemoveRecord]: "one record removed from the middle: a loss";
        "gC1" odd::refusals::late_publish_is_told [TopicDown]: "a publish that is not stored for long is told with its key, and others go on";
        "gC2" odd::refusals::refused_when_sent_again [LoseConfirmation, RefusePublish]: "stored, its answer lost, refused when sent again: confirmed, and one copy";
        "gC3" odd::refusals::limit_lowered [LowerLimit]: "a topic's limit lowered: large ones refused, small ones confirmed";
        "gD1" odd::operators::topic_deleted_under_a_member: "topic deleted under a member: its subscription ends";
        "gD2" odd::operators::topic_deleted_under_a_publisher: "topic deleted under a publisher: refused, made again: stored";
        "gD3" odd::operators::dead_letter_topic_deleted: "dead-letter topic deleted: the key waits for its letter, others do not";
        "gD4" odd::operators::progress_removed [RemoveProgress]: "progress removed under a member: ended, begun anew where told";
        "gD5" odd::operators::settings_spoiled [SpoilTopic]: "a setting that takes records out of the middle: refused by name";
        "gD6" odd::operators::readers_removed [RemoveReaders]: "readers removed at the broker: made again, nothing twice";
        "gD7" odd::operators::partitions_added [AddPartitions]: "partitions added: told, refused until accepted, all handled";
        "gD8" odd::operators::group_deleted: "a group that was deleted begins anew";
        "gE1" odd::ends::blocked_handler_keeps_its_partition on Threads: "a handler that blocks its thread keeps its partition until its member's session would be over";
        "gE2" odd::ends::bus_dropped_before_its_subscription: "the last handle of a bus dropped while a subscription lives: handed back as if closed";
        "gF1" odd::front_door::odd_attributes [StoreRaw]: "optional attributes in odd forms are left out, the event is handled";
        "gF2" odd::front_door::waits_for_its_topic: "a subscriber that comes before its topic waits for it";
    }
    P2 {
        "a1" p2::content::round_trip: "payloads, headers and attributes, odd bytes and all";
        "a2" p2::content::topics_are_isolated: "topics are isolated, however alike their names";
        "a3" p2::content::trace_context: "trace context crosses the broker";
        "b1" p2::answers::mistakes: "unknown topic, bad name, closed bus, active group: each its own error";
        "b2" p2::answers::withdrawn [LoseConfirmation]: "a cancelled call is told as withdrawn";
        "b3" p2::answers::credentials [Credentials]: "wrong credentials";
        "b4" p2::answers::topics: "a topic's life, answered as every server does";
        "b5" p2::answers::too_large [LimitRecords]: "what is too large is refused before it takes a place";
        "c1" p2::wire::foreign_records [StoreRaw]: "CloudEvents of foreign producers become envelopes";
        "c2" p2::wire::own_records: "the library's records are CloudEvents";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_case_is_missing_or_comes_twice() {
        let names: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len(), "two cases of one name");
        let places: BTreeSet<_> = CASES.iter().map(|case| (case.priority, case.number)).collect();
        assert_eq!(places.len(), CASES.len(), "two cases of one number");
        let numbers: BTreeSet<u32> = CASES
            .iter()
            .filter(|case| case.priority == Priority::P0)
            .filter_map(|case| case.number.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().ok())
            .collect();
        assert_eq!(numbers, (1..=29).collect(), "the contract numbers its first cases from 1 to 29");
    }
}

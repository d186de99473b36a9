//! The allocations of a dispatch, counted. This is a program of its own, since it counts all that the allocator gives
//! out.

use std::alloc::System;

use eventbus_core::bench::Dispatch;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BATCH: usize = 1_000;
const BATCHES: usize = 20;

#[test]
fn a_dispatch_never_allocates_more_than_its_handler_s_future() {
    for keys in [1, 10, 1_000] {
        let mut pool = Dispatch::new(keys).unwrap();
        let mut round = || {
            let records = pool.records(BATCH);
            let region = Region::new(ALLOCATOR);
            pool.dispatch(records);
            let allocations = region.change().allocations;
            assert!(pool.is_through());
            allocations
        };
        // The first rounds: every queue grows as long as it gets.
        (0..BATCHES).for_each(|_| {
            round();
        });
        let allocations: usize = (0..BATCHES).map(|_| round()).sum();
        let futures = BATCH * BATCHES;
        assert!(allocations >= futures, "the handler's future is one: {allocations}");
        assert!(
            allocations <= futures + futures / 100,
            "{keys} keys: {allocations} allocations of {futures} dispatches"
        );
    }
}

//! Benchmark of a dispatch: the time that one envelope takes through pool and worker.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use eventbus_core::bench::Dispatch;

const BATCH: usize = 1_000;

fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(BATCH as u64));
    for keys in [1, 10, 1_000, 1_000_000] {
        let mut pool = Dispatch::new(keys).unwrap();
        let records = std::cell::RefCell::new(Dispatch::new(keys).unwrap());
        group.bench_function(format!("{keys} keys"), |bencher| {
            bencher.iter_batched(
                || records.borrow_mut().records(BATCH),
                |records| pool.dispatch(records),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);

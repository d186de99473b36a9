//! Benchmark of a publish: its time through the key lanes, to a backend that answers inside the call.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eventbus_core::bench::Publishes;

const BATCH: usize = 1_000;

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(BATCH as u64));
    for keys in [1, 10, 1_000, 1_000_000] {
        let mut bus = Publishes::new(keys).unwrap();
        group.bench_function(format!("{keys} keys"), |bencher| {
            bencher.iter(|| assert_eq!(bus.publish(BATCH), 0));
        });
    }
    group.finish();
}

criterion_group!(benches, publish);
criterion_main!(benches);

//! Table of the fixed workloads.

use std::time::Duration;

use super::{Keys, Payload, Shape, Work, Workload};

/// The four sizes of several families, with their numbers of messages.
const SIZES: [(&str, usize); 4] = [("low", 500), ("medium", 2_000), ("high", 5_000), ("extreme", 10_000)];

const MS: Duration = Duration::from_millis(1);

/// Makes a workload with the values that most have in common.
fn base(name: impl Into<String>, about: impl Into<String>, messages: usize, keys: usize) -> Workload {
    Workload {
        name: name.into(),
        about: about.into(),
        messages,
        topics: 1,
        partitions: None,
        keys: Keys::Count(keys),
        payload: Payload::Bytes(256),
        publishers: 1,
        work: Work::None,
        handlers: None,
        members: 1,
        in_memory: false,
        has_stuck_key: false,
        shape: Shape::Flow,
        selected: false,
        seconds: 0.2,
    }
}

/// Returns all workloads, in the order in which they run.
pub(crate) fn all() -> Vec<Workload> {
    let mut all = vec![Workload { selected: true, ..base("single-key", "1 000 messages of one key", 1_000, 1) }];
    all.extend(pressure());
    all.extend(envelope());
    all.extend(ephemeral());
    all.push(burst());
    all.extend(pool());
    all.extend(parallel());
    all.push(stuck_key());
    all.extend(throughput());
    all.push(steady());
    all
}

fn pressure() -> impl Iterator<Item = Workload> {
    SIZES.into_iter().zip([(1, 5), (2, 10), (4, 20), (8, 50)]).map(|((size, messages), (kib, publishers))| Workload {
        payload: Payload::Bytes(kib * 1_024),
        publishers,
        selected: size == "high",
        ..base(
            format!("pressure-{size}"),
            format!("{messages} messages of {kib} KiB, 100 keys, {publishers} publishers"),
            messages,
            100,
        )
    })
}

fn envelope() -> impl Iterator<Item = Workload> {
    [0, 2, 5].into_iter().flat_map(|millis| {
        SIZES.into_iter().map(move |(size, messages)| {
            let keys = messages / 10;
            let (suffix, handler) = match millis {
                0 => (String::new(), String::new()),
                _ => (format!("-{millis}ms"), format!(", handlers take {millis} ms")),
            };
            Workload {
                topics: 5,
                payload: Payload::SmallJson,
                publishers: keys,
                work: if millis == 0 { Work::None } else { Work::Fixed(MS * millis) },
                selected: size == "high" && millis < 5,
                seconds: 0.3 + messages as f64 * f64::from(millis) / 1_000.0 / 40.0,
                ..base(
                    format!("envelope-{size}{suffix}"),
                    format!("{keys} keys with ten events each, 5 topics, a publisher per key{handler}"),
                    messages,
                    keys,
                )
            }
        })
    })
}

fn ephemeral() -> impl Iterator<Item = Workload> {
    SIZES.into_iter().map(|(size, messages)| Workload {
        topics: 5,
        payload: Payload::Bytes(108),
        publishers: 5,
        in_memory: true,
        selected: size == "extreme",
        ..base(
            format!("ephemeral-{size}"),
            format!("{messages} messages of 108 B, 5 topics of one key each, storage in memory"),
            messages,
            5,
        )
    })
}

fn burst() -> Workload {
    Workload {
        topics: 5,
        payload: Payload::BurstJson,
        publishers: 5,
        selected: true,
        ..base("burst", "10 000 JSON messages, 5 topics, 100 keys, 5 publishers", 10_000, 100)
    }
}

/// Workloads of the keyed pool, without a broker's part: the log is filled in memory before the clock starts, and a
/// subscription that handles it is timed. The public interface has nothing closer to the pool alone.
fn pool() -> impl Iterator<Item = Workload> {
    [(2_u32, 500), (5, 500), (0, 500_000)].into_iter().flat_map(|(millis, messages)| {
        [1, 8, 16, 32].into_iter().map(move |handlers: usize| {
            let handler = if millis == 0 { "none".to_owned() } else { format!("{millis}ms") };
            let waiting = messages as f64 * (f64::from(millis) + 1.2) / 1_000.0 / handlers as f64;
            Workload {
                work: if millis == 0 { Work::None } else { Work::Fixed(MS * millis) },
                handlers: Some(handlers),
                shape: Shape::Prefilled,
                selected: millis == 2 || (millis, handlers) == (0, 16),
                seconds: if millis == 0 { 2.5 } else { 0.2 + waiting },
                ..base(
                    format!("pool-{handler}-{handlers}"),
                    format!("{messages} distinct keys, handlers {handler}, {handlers} at once, log filled beforehand"),
                    messages,
                    messages,
                )
            }
        })
    })
}

fn parallel() -> impl Iterator<Item = Workload> {
    [Some(1), Some(10), Some(100), Some(1_000), None].into_iter().map(|keys| {
        let (name, what) = match keys {
            Some(keys) => (keys.to_string(), format!("{keys} keys")),
            None => ("unkeyed".to_owned(), "no keys".to_owned()),
        };
        let at_once = keys.unwrap_or(100).min(100);
        Workload {
            keys: keys.map_or(Keys::None, Keys::Count),
            payload: Payload::SmallJson,
            work: Work::Random(MS * 5),
            handlers: Some(100),
            selected: at_once == 100,
            seconds: 0.2 + 10_000.0 * 0.0031 / at_once as f64,
            ..base(
                format!("parallel-{name}"),
                format!("10 000 messages, {what}, handlers take 0 to 5 ms, 100 at once"),
                10_000,
                0,
            )
        }
    })
}

fn stuck_key() -> Workload {
    Workload {
        work: Work::Stuck(Duration::from_secs(1)),
        has_stuck_key: true,
        handlers: Some(64),
        selected: true,
        seconds: 1.6,
        ..base("stuck-key", "100 000 messages of 1 000 keys, one key takes 1 s each, 64 handlers", 100_000, 1_000)
    }
}

fn throughput() -> impl Iterator<Item = Workload> {
    [1, 10, 100, 1_000, 10_000, 1_000_000].into_iter().map(|keys: usize| Workload {
        partitions: Some(16),
        publishers: 4,
        selected: keys == 1_000,
        seconds: 6.0,
        ..base(
            format!("throughput-{keys}"),
            format!("1 000 000 messages of 256 B, {keys} keys, 16 partitions, 4 publishers"),
            1_000_000,
            keys,
        )
    })
}

fn steady() -> Workload {
    Workload {
        topics: 3,
        payload: Payload::Bytes(1_024),
        publishers: 10,
        shape: Shape::Paced(MS * 10),
        selected: true,
        seconds: 31.0,
        ..base("steady", "30 s of 1 000 messages a second, 1 KiB, 3 topics, 1 000 keys, 10 publishers", 30_000, 1_000)
    }
}

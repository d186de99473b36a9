//! Records of any bytes, drawn.

use conformance_tests::suite::RawRecord;
use rand::Rng;

/// Up to so many bytes of any kind.
pub(crate) fn bytes(random: &mut impl Rng, most: usize) -> Vec<u8> {
    let length = random.random_range(0..=most);
    (0..length).map(|_| random.random()).collect()
}

/// A record with this key, and with headers, value and time that are drawn.
pub(crate) fn drawn(random: &mut impl Rng, key: Option<Vec<u8>>) -> RawRecord {
    let names: [&[u8]; 8] =
        [b"", b"caf\xe9", b"\xff\xfe", b"ce_id", b"ce_time", b"content-type", b"traceparent", b"a b\r\n:"];
    let count = if random.random_ratio(1, 40) { 5_000 } else { random.random_range(0..12) };
    let headers = (0..count).map(|_| {
        let name = match random.random_range(0..3) {
            0 => names[random.random_range(0..names.len())].to_vec(),
            _ => bytes(random, 6),
        };
        (name, random.random_bool(0.8).then(|| bytes(random, 9)))
    });
    let headers = headers.collect();
    let value = random.random_bool(0.9).then(|| bytes(random, 60));
    // The broker refuses what lies in the future.
    let time = [-1, 0, 1_700_000_000_000][random.random_range(0..3)];
    RawRecord { key, value, headers, time }
}

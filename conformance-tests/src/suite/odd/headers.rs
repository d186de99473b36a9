//! Headers of any bytes, which clients cannot take: the record is handled without them, and nothing else is disturbed
//! (S1, S2).

use bytes::Bytes;

use super::foreign::{KEY, go_on, outcome, partition, start};
use crate::suite::common::TOPIC;
use crate::suite::failure::ensure;
use crate::suite::{Failure, Run};

/// Stores a record with this header among others, twice; both are handled, without it.
async fn left_out(run: Run, name: &'static [u8], value: &'static [u8]) -> Result<(), Failure> {
    let peer = start(&run).await?;
    for _ in 0..2 {
        let headers = vec![(Bytes::from_static(name), Bytes::from_static(value))];
        run.fixture().store_bytes(TOPIC, partition()?, Bytes::from_static(KEY.as_bytes()), headers).await?;
    }
    go_on(&peer).await?;
    let outcome = outcome(&run, &peer).await?;
    ensure!(outcome.handled.len() == 2 && outcome.letters.is_empty(), "expected two that are handled: {outcome:?}");
    for delivery in &outcome.handled {
        let envelope = delivery.envelope();
        let whole = envelope.payload() == "{}" && envelope.key().is_some_and(|key| key.as_bytes() == KEY.as_bytes());
        ensure!(whole, "key or payload are lost: {envelope:?}");
        let same = envelope.headers().all(|(_, found)| value.starts_with(found.as_bytes()));
        ensure!(same, "a header is made up: {envelope:?}");
    }
    Ok(())
}

/// A header's name that is not text.
pub(in crate::suite) async fn name_not_text(run: Run) -> Result<(), Failure> {
    left_out(run, b"caf\xe9", b"1").await
}

/// A header without a name.
pub(in crate::suite) async fn name_empty(run: Run) -> Result<(), Failure> {
    left_out(run, b"", b"1").await
}

/// A header's name that no client could write.
pub(in crate::suite) async fn name_with_spaces(run: Run) -> Result<(), Failure> {
    left_out(run, b"X Trace (1)", b"1").await
}

/// A header's value with a bare carriage return.
pub(in crate::suite) async fn value_with_carriage_return(run: Run) -> Result<(), Failure> {
    left_out(run, b"X-Note", b"a\rb").await
}

/// A header's value with a line end, behind which there is no header.
pub(in crate::suite) async fn value_with_line_end(run: Run) -> Result<(), Failure> {
    left_out(run, b"X-Note", b"1\r\nWord").await
}

//! A source whose records are decoded as they come.
//!
//! Invariant: only the records are changed, so every promise of the source holds for this one.

use std::task::{Context, Poll};

use async_trait::async_trait;

use super::{Source, SourceEvent};
use crate::model::Result;

struct Mapped<S, R, F> {
    source: S,
    read: F,
    /// The type of the source's records.
    _given: std::marker::PhantomData<fn() -> R>,
}

/// Wraps a source to decode its records: for [`LeaseStore::open`](super::LeaseStore::open) over a client's own
/// messages.
///
/// ```
/// use eventbus_core::backend::{Body, Inbound};
/// use eventbus_core::toolkit::lease::{Source, mapped};
/// use eventbus_core::wire::{Binding, WireRecord};
/// use eventbus_core::{Position, Result};
///
/// static BINDING: Binding = Binding::new("ce-");
///
/// fn open(source: impl Source<(u64, Vec<u8>)>, partition: u32) -> Result<Box<dyn Source>> {
///     let read = move |(position, payload): (u64, Vec<u8>)| {
///         let record = WireRecord { key: None, headers: Vec::new(), payload: payload.into() };
///         Inbound::new(partition, Position::new(position), 0, Body::Encoded { record, binding: &BINDING })
///     };
///     Ok(Box::new(mapped(source, read)))
/// }
/// ```
pub fn mapped<R: 'static, T>(source: impl Source<R>, read: impl FnMut(R) -> T + Send + 'static) -> impl Source<T> {
    Mapped { source, read, _given: std::marker::PhantomData }
}

#[async_trait]
impl<S: Source<R>, R: 'static, T, F: FnMut(R) -> T + Send + 'static> Source<T> for Mapped<S, R, F> {
    async fn request(&mut self, records: usize, bytes: Option<usize>) -> Result<()> {
        self.source.request(records, bytes).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<SourceEvent<T>> {
        self.source.poll_next(context).map(|pulled| match pulled {
            SourceEvent::Record { delivery, left, record } => {
                SourceEvent::Record { delivery, left, record: (self.read)(record) }
            }
            SourceEvent::Ended(left) => SourceEvent::Ended(left),
            SourceEvent::Full(left) => SourceEvent::Full(left),
            SourceEvent::Alive => SourceEvent::Alive,
            SourceEvent::Broken(why) => SourceEvent::Broken(why),
        })
    }
}

//! The owned partitions by number. Looked up several times for every envelope, so by index and not by search: a topic has
//! at most thousands, and one that is not owned costs a pointer.

use super::partition::Partition;

#[derive(Debug, Default)]
pub(super) struct Partitions(Vec<Option<Box<Partition>>>);

impl Partitions {
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Partition> {
        self.0.get(number as usize)?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Partition> {
        self.0.get_mut(number as usize)?.as_deref_mut()
    }

    pub(super) fn insert(&mut self, number: u32, partition: Partition) {
        let index = number as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(Box::new(partition));
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Partition> {
        self.0.get_mut(number as usize)?.take().map(|partition| *partition)
    }

    /// In order of their numbers, as all that walk over them.
    pub(super) fn values(&self) -> impl Iterator<Item = &Partition> {
        self.0.iter().filter_map(Option::as_deref)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.0.iter_mut().filter_map(Option::as_deref_mut)
    }
}

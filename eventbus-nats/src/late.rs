//! Late acknowledgements: answers to submissions that were given up (P2, P3).
//!
//! Invariant: an answer that says *stored* counts for the stamp, however late it comes and whichever send it answers. Any
//! other late answer counts for nothing, since the record may have been sent again meanwhile.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use eventbus_core::Stamp;
use eventbus_core::backend::Fate;

/// The most sends whose late answers are waited for; beyond them the oldest are forgotten.
const KEPT: usize = 65_536;

/// Sends that were given up without an answer, by their ids.
#[derive(Debug)]
pub(crate) struct LateAnswers<I> {
    sends: HashMap<I, Stamp>,
    order: VecDeque<I>,
    stamps: HashMap<Stamp, LateStamp<I>>,
}

impl<I> Default for LateAnswers<I> {
    fn default() -> Self {
        Self { sends: HashMap::new(), order: VecDeque::new(), stamps: HashMap::new() }
    }
}

/// A stamp with a send that was given up.
#[derive(Debug)]
struct LateStamp<I> {
    /// Sends of this stamp that were given up and are not forgotten.
    sends: usize,
    /// The send of the stamp that is under way.
    under_way: Option<I>,
    /// The late answer, where it came while no send was under way.
    stored: Option<Fate>,
}

/// The meaning of a late answer for the table of submissions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Late<I> {
    /// It confirms this send, which is under way.
    Confirms(I),
    /// Nothing of the stamp is under way, or nobody knows of the send.
    Nothing,
}

impl<I: Copy + Eq + Hash> LateAnswers<I> {
    /// Notes a send that is given up without an answer.
    pub(crate) fn given_up(&mut self, id: I, stamp: Stamp) {
        let late = self.stamps.entry(stamp).or_insert(LateStamp { sends: 0, under_way: None, stored: None });
        (late.sends, late.under_way) = (late.sends + 1, None);
        self.sends.insert(id, stamp);
        self.order.push_back(id);
        while self.order.len() > KEPT {
            let Some(oldest) = self.order.pop_front() else { return };
            self.forget(oldest);
        }
    }

    /// Notes that a stamp is sent. Returns its fate, if that is known by a late answer: then it need not be sent.
    pub(crate) fn sends(&mut self, id: I, stamp: Stamp) -> Option<Fate> {
        let late = self.stamps.get_mut(&stamp)?;
        late.under_way = Some(id);
        late.stored.as_ref()?;
        self.stamps.remove(&stamp)?.stored
    }

    /// Notes that the send under way of a stamp has ended.
    pub(crate) fn ended(&mut self, stamp: Stamp) {
        if let Some(late) = self.stamps.get_mut(&stamp) {
            late.under_way = None;
        }
    }

    /// Takes the answer *stored* to a send that was given up.
    pub(crate) fn came(&mut self, id: I, stored: &Fate) -> Late<I> {
        let Some(late) = self.sends.get(&id).and_then(|stamp| self.stamps.get_mut(stamp)) else {
            return Late::Nothing;
        };
        match late.under_way {
            Some(under_way) => Late::Confirms(under_way),
            None => {
                late.stored = Some(stored.clone());
                Late::Nothing
            }
        }
    }

    fn forget(&mut self, id: I) {
        let Some(stamp) = self.sends.remove(&id) else { return };
        if let Some(late) = self.stamps.get_mut(&stamp) {
            late.sends -= 1;
            if late.sends == 0 {
                self.stamps.remove(&stamp);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use eventbus_core::{Position, ProducerId};

    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp::new(ProducerId::new(1), number)
    }

    fn stored() -> Fate {
        Fate::Stored { position: Position::new(7), duplicate: false }
    }

    #[test]
    fn a_late_answer_confirms_the_send_that_is_under_way() {
        let mut late = LateAnswers::default();
        late.given_up(1, stamp(5));
        assert!(late.sends(2, stamp(5)).is_none());
        late.given_up(2, stamp(5));
        assert!(late.sends(3, stamp(5)).is_none());
        assert_eq!(late.came(1, &stored()), Late::Confirms(3));
        late.ended(stamp(5));
        assert_eq!(late.came(2, &stored()), Late::Nothing, "nothing of it is under way");
    }

    #[test]
    fn a_late_answer_that_comes_between_two_sends_spares_the_second() {
        let mut late = LateAnswers::default();
        late.given_up(1, stamp(5));
        assert_eq!(late.came(1, &stored()), Late::Nothing);
        assert!(matches!(late.sends(2, stamp(5)), Some(Fate::Stored { .. })));
        assert!(late.sends(3, stamp(5)).is_none(), "it is told once");
        assert_eq!(late.came(9, &stored()), Late::Nothing, "nobody knows of this send");
    }

    #[test]
    fn sends_without_an_answer_are_forgotten_in_the_end() {
        let mut late = LateAnswers::default();
        (0..2 * KEPT as u64).for_each(|id| late.given_up(id, stamp(id / 2)));
        assert_eq!((late.sends.len(), late.order.len(), late.stamps.len()), (KEPT, KEPT, KEPT / 2));
        assert_eq!(late.came(0, &stored()), Late::Nothing);
    }
}

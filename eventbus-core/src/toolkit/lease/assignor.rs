//! Assignor: one function by which every member computes its share from the store's entries (S5).
//!
//! Invariants: shares differ by at most one partition; the larger ones go to the members that hold the most already, so
//! that the fewest partitions move. Since all members compute the same shares from the same records, a partition that
//! one gives up is within another's share.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Owner of a partition, as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PartitionOwner {
    /// No member owns it, or the owner has not renewed it for its lease.
    Free,
    /// The member with this name owns it.
    Owned(String),
}

/// Changes that a member should make.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AssignmentPlan {
    /// Owned partitions to give up.
    pub(super) yields: Vec<u32>,
    /// Free partitions to take.
    pub(super) takes: Vec<u32>,
}

/// Plans the changes of `me`. `members` are those alive, `me` among them; `leaving` are `me`'s partitions being given
/// up.
pub(super) fn plan(me: &str, members: &[String], slots: &[PartitionOwner], leaving: &[u32]) -> AssignmentPlan {
    let mut held: BTreeMap<&str, usize> = members.iter().map(|member| (member.as_str(), 0)).collect();
    held.entry(me).or_default();
    for (partition, slot) in (0..).zip(slots) {
        if let PartitionOwner::Owned(owner) = slot
            && let Some(count) = held.get_mut(owner.as_str())
            && !(owner == me && leaving.contains(&partition))
        {
            *count += 1;
        }
    }
    let mut by_held: Vec<(&str, usize)> = held.into_iter().collect();
    by_held.sort_by_key(|(name, count)| (Reverse(*count), *name));
    let (each, larger) = (slots.len() / by_held.len(), slots.len() % by_held.len());
    let Some((rank, (_, mine))) = by_held.iter().enumerate().find(|(_, (name, _))| *name == me) else {
        return AssignmentPlan::default();
    };
    let share = each + usize::from(rank < larger);
    let partitions = || (0..).zip(slots);
    let is_mine = |slot: &PartitionOwner| matches!(slot, PartitionOwner::Owned(owner) if owner == me);
    let kept = partitions().filter(|(partition, slot)| is_mine(slot) && !leaving.contains(partition));
    let mut free: Vec<u32> = partitions().filter(|(_, slot)| **slot == PartitionOwner::Free).map(|(p, _)| p).collect();
    if !free.is_empty() {
        // Members begin at different partitions, so that they seldom try for the same.
        let begin = free.len() * rank / by_held.len();
        free.rotate_left(begin);
    }
    AssignmentPlan {
        yields: kept.skip(share).map(|(partition, _)| partition).collect(),
        takes: free.into_iter().take(share.saturating_sub(*mine)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets every member act on the same view until nothing changes. Returns how many partitions moved between two
    /// members that both stayed.
    fn settle(members: &[String], slots: &mut [PartitionOwner]) -> usize {
        let mut moved = 0;
        for _ in 0..slots.len() + 2 {
            let view = slots.to_vec();
            for me in members {
                let plan = plan(me, members, &view, &[]);
                for partition in plan.yields {
                    slots[partition as usize] = PartitionOwner::Free;
                    moved += 1;
                }
                for partition in plan.takes {
                    if slots[partition as usize] == PartitionOwner::Free {
                        slots[partition as usize] = PartitionOwner::Owned(me.clone());
                    }
                }
            }
        }
        moved
    }

    fn counts(members: &[String], slots: &[PartitionOwner]) -> Vec<usize> {
        let owned = |me: &String| slots.iter().filter(|slot| **slot == PartitionOwner::Owned(me.clone())).count();
        members.iter().map(owned).collect()
    }

    proptest::proptest! {
        #[test]
        fn any_join_or_leave_settles_balanced_with_the_fewest_moves(
            partitions in 1_usize..40, steps in proptest::collection::vec((proptest::bool::ANY, 0_usize..8), 1..12),
        ) {
            let mut slots = vec![PartitionOwner::Free; partitions];
            let mut members: Vec<String> = Vec::new();
            for (n, (join, which)) in steps.into_iter().enumerate() {
                let before = counts(&members, &slots);
                if join || members.len() < 2 {
                    members.push(format!("m{n:02}"));
                } else {
                    let gone = members.remove(which % members.len());
                    for slot in slots.iter_mut().filter(|slot| **slot == PartitionOwner::Owned(gone.clone())) {
                        *slot = PartitionOwner::Free;
                    }
                }
                let stayed = counts(&members, &slots);
                let moved = settle(&members, &mut slots);
                let after = counts(&members, &slots);
                proptest::prop_assert_eq!(after.iter().sum::<usize>(), partitions);
                let (most, least) = (after.iter().max().unwrap(), after.iter().min().unwrap());
                proptest::prop_assert!(most - least <= 1, "{:?} {:?}", before, after);
                // The needed moves: all that a member held beyond its share, the larger shares going to those that held
                // the most.
                let mut sorted = stayed.clone();
                sorted.sort_by_key(|count| Reverse(*count));
                let (each, larger) = (partitions / members.len(), partitions % members.len());
                let shares = (0..members.len()).map(|rank| each + usize::from(rank < larger));
                let needed: usize = sorted.iter().zip(shares).map(|(held, share)| held.saturating_sub(share)).sum();
                proptest::prop_assert_eq!(moved, needed);
            }
        }
    }

    #[test]
    fn what_is_being_given_up_is_not_given_up_twice_and_not_counted() {
        let mine = || PartitionOwner::Owned("a".into());
        let members = ["a".to_owned(), "b".to_owned()];
        let slots = [mine(), mine(), mine(), mine()];
        assert_eq!(plan("a", &members, &slots, &[]), AssignmentPlan { yields: vec![2, 3], takes: vec![] });
        assert_eq!(plan("a", &members, &slots, &[2, 3]), AssignmentPlan::default());
        assert_eq!(plan("b", &members, &slots, &[]), AssignmentPlan::default());
    }

    #[test]
    fn the_larger_share_stays_with_who_holds_the_most() {
        let (a, b) = (PartitionOwner::Owned("a".into()), PartitionOwner::Owned("b".into()));
        let (members, slots) = (["a".to_owned(), "b".to_owned()], [b.clone(), a, b]);
        assert_eq!(plan("a", &members, &slots, &[]), AssignmentPlan::default());
        assert_eq!(plan("b", &members, &slots, &[]), AssignmentPlan::default());
    }

    #[test]
    fn a_partition_of_a_member_that_nobody_sees_stays_until_its_lease_ends() {
        let slots = [PartitionOwner::Owned("dead".into()), PartitionOwner::Free];
        assert_eq!(plan("a", &["a".to_owned()], &slots, &[]), AssignmentPlan { yields: vec![], takes: vec![1] });
    }
}

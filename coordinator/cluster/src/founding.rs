//! That there is one cluster under one authority. Founders whose lists of members differ would be founders of two: they
//! take no part in each other's elections, and no new cluster begins before each of its founders has said that it was
//! founded with the same list. A node has one list, so of two lists that name it only one can become a cluster.

use archipelago_common::{NodeId, member::Origin};

use crate::mutation::{self, Rule};

/// Whether two coordinators may be of one cluster, as far as their logs' origins tell.
pub fn are_of_one_cluster(one: Origin, other: Origin) -> bool {
    match (one, other) {
        (Origin::Founded(one), Origin::Founded(other)) => one == other || mutation::is_broken(Rule::OneFounding),
        _ => true,
    }
}

/// The first of the other founders that has not said that it was founded as this node was: a new cluster waits for it.
/// Nobody is waited for by a log of unknown origin.
pub fn awaited_founder(
    own: Origin,
    others: impl IntoIterator<Item = NodeId>,
    said: impl Fn(NodeId) -> Option<Origin>,
) -> Option<NodeId> {
    let is_awaited = |node: &NodeId| match said(*node) {
        // It was to be a founder, and joins instead.
        None | Some(Origin::Joined) => true,
        Some(origin) => !are_of_one_cluster(own, origin),
    };
    matches!(own, Origin::Founded(_)).then(|| others.into_iter().find(is_awaited)).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_cluster_begins_when_every_founder_has_the_same_list() {
        let node = |id| NodeId::new(id).unwrap();
        let list = |ids: &[u64]| ids.iter().map(|id| (node(*id), format!("h{id}:1"))).collect::<BTreeMap<_, _>>();
        let ours = Origin::founded_with(&list(&[1, 2, 3]));
        let theirs = Origin::founded_with(&list(&[3, 4, 5]));
        assert_ne!(ours, Origin::founded_with(&list(&[1, 2])));
        let mut elsewhere = list(&[1, 2, 3]);
        elsewhere.insert(node(3), "other:1".to_owned());
        assert_ne!(ours, Origin::founded_with(&elsewhere));
        let awaited = |said: &[(u64, Origin)]| {
            let said: BTreeMap<_, _> = said.iter().map(|(id, origin)| (node(*id), *origin)).collect();
            awaited_founder(ours, [node(2), node(3)], |node| said.get(&node).copied())
        };
        assert_eq!(awaited(&[(2, ours), (3, ours)]), None);
        assert_eq!(awaited(&[(2, ours), (3, Origin::Unknown)]), None, "of an earlier version");
        assert_eq!(awaited(&[(2, ours)]), Some(node(3)));
        assert_eq!(awaited(&[(2, ours), (3, theirs)]), Some(node(3)));
        assert_eq!(awaited(&[(2, Origin::Joined), (3, ours)]), Some(node(2)));
        assert_eq!(awaited_founder(Origin::Unknown, [node(2)], |_| None), None);
        assert!(!are_of_one_cluster(ours, theirs) && are_of_one_cluster(ours, Origin::Joined));
    }
}

//! A tree of cell types over many sites: what data sets contribute to it as parts, and the function that makes it of them.
//!
//! A data set is a condition whose cells have labels. It contributes a [`Classifier`], which tells its types from each other, and
//! [counts] of what the classifiers of others say of its cells. The tree is a function of a version alone, see [`derive()`]: also the
//! order of the data sets is among what they contribute. `docs/trees.md` tells all of it; the tree itself is in
//! `archipelago-hierarchy`, whoever trains machines is the worker.

pub mod counts;
mod machines;
mod points;

pub use machines::{Components, Machines, tensor_of};
pub use points::Points;

use std::collections::BTreeMap;

use archipelago_hierarchy::{CountTable, SharedData, SharedTree};

use crate::{
    blob::BlobRef,
    condition::{ConditionKey, Section},
    error::Result,
    id::Name,
    layout::{Derivation, Layout, Rule},
    part::Member,
};

/// The part of machines.
pub const MACHINES: &str = "tree-machines";
/// The part of cells in the latent space, of references whose publisher lets sites share positions.
pub const POINTS: &str = "tree-points";
/// The part of what cells are to the classifiers of others.
pub const COUNTS: &str = "tree-counts";
/// The part of what cells are to a tree.
pub const ANNOTATIONS: &str = "tree-annotations";
/// The value that is derived.
pub const VALUE: &str = "tree";
/// The function that derives it of machines.
pub const FUNCTION: &str = "hpl-1";
/// The function that derives it of machines, or of cells where there are some.
pub const FUNCTION_WITH_POINTS: &str = "hpl-2";

/// All of these parts.
pub const PARTS: [&str; 4] = [MACHINES, POINTS, COUNTS, ANNOTATIONS];

/// What data sets tell their types apart with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Machines only: no position of a cell leaves a site.
    Machines,
    /// The cells themselves where a site's policy lets them out, machines of the others.
    Points,
}

/// Lets the versions of a reference hold what a tree is made of.
pub fn declare(layout: &mut Layout, sharing: Sharing) {
    let counted = || Rule::Pool { tables: counts::tables() };
    layout.parts.extend([(name(MACHINES), Rule::Union), (name(COUNTS), counted()), (name(ANNOTATIONS), counted())]);
    let function = match sharing {
        Sharing::Machines => FUNCTION,
        Sharing::Points => {
            layout.parts.insert(name(POINTS), Rule::Union);
            FUNCTION_WITH_POINTS
        }
    };
    layout.derived.insert(name(VALUE), Derivation { function: name(function), part: name(COUNTS) });
}

/// Whether versions over a base hold what a tree is made of.
pub fn is_declared(layout: &Layout) -> bool {
    layout.derived.values().any(|derivation| is_function(&derivation.function))
}

/// Whether a function derives trees.
pub fn is_function(function: &Name) -> bool {
    [FUNCTION, FUNCTION_WITH_POINTS].contains(&function.as_str())
}

/// What tells the types of a data set from each other.
#[derive(Clone, PartialEq, Debug)]
pub enum Classifier {
    /// Planes between them.
    Machines(Machines),
    /// The cells themselves.
    Points(Points),
}

impl Classifier {
    /// Who joins the tree before whom, see [`Machines::place`].
    pub fn place(&self) -> u64 {
        match self {
            Self::Machines(machines) => machines.place,
            Self::Points(points) => points.place,
        }
    }

    /// The types, sorted.
    pub fn types(&self) -> Vec<&str> {
        match self {
            Self::Machines(machines) => machines.types.keys().map(String::as_str).collect(),
            Self::Points(points) => points.types.keys().map(String::as_str).collect(),
        }
    }
}

/// The classifiers among members, in the order in which their data sets join: by place, then by key. Of a data set that has both, its
/// cells.
///
/// # Errors  [`crate::Error::Decode`] for members that are none
pub fn classifiers(members: &BTreeMap<ConditionKey, Member>) -> Result<Vec<(ConditionKey, BlobRef, Classifier)>> {
    let mut found = BTreeMap::new();
    for part in [MACHINES, POINTS] {
        for (key, member) in of_part(members, part) {
            let Member::Tensors(tensors) = member else { continue };
            let classifier = match part {
                POINTS => Classifier::Points(Points::from_tensors(tensors)?),
                _ => Classifier::Machines(Machines::from_tensors(tensors)?),
            };
            let blob = BlobRef::of(&member.to_bytes());
            found.insert(key.clone().in_section(Section::Condition), (blob, classifier));
        }
    }
    let mut found: Vec<_> = found.into_iter().map(|(key, (blob, classifier))| (key, blob, classifier)).collect();
    // They come sorted by key, and the sort is stable.
    found.sort_by_key(|(_, _, classifier)| classifier.place());
    Ok(found)
}

/// The tree of a version, from its members.
///
/// # Errors  [`crate::Error::Decode`] for members that are not what their parts hold
pub fn shared(members: &BTreeMap<ConditionKey, Member>) -> Result<SharedTree> {
    let classifiers = classifiers(members)?;
    let mut counts: BTreeMap<ConditionKey, BTreeMap<String, CountTable>> = BTreeMap::new();
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, blob, _) in &classifiers {
        named.entry(blob.digest.short()).or_default().push(key.to_string());
    }
    for (key, member) in of_part(members, COUNTS) {
        let (Some((data_set, by)), Member::Sums(pool)) = (counts::read_key(key), member) else { continue };
        for other in named.get(by).into_iter().flatten() {
            counts.entry(data_set.clone()).or_default().insert(other.clone(), counts::table(pool)?);
        }
    }
    let data_sets: Vec<SharedData> = classifiers
        .iter()
        .map(|(key, _, own)| {
            let counts = counts.remove(key).unwrap_or_default();
            SharedData { name: key.to_string(), types: own.types().into_iter().map(str::to_owned).collect(), counts }
        })
        .collect();
    Ok(SharedTree::of(&data_sets))
}

/// How many cells of all sites a tree puts at which node, or rejects and why. What was counted by another tree says nothing of this one.
///
/// # Errors  [`crate::Error::Decode`] for members that are not what their part holds
pub fn annotated(members: &BTreeMap<ConditionKey, Member>, tree: &SharedTree) -> Result<BTreeMap<String, u64>> {
    let digest = BlobRef::of(&to_bytes(tree)).digest.short();
    let mut annotated: BTreeMap<String, u64> = BTreeMap::new();
    for (key, member) in of_part(members, ANNOTATIONS) {
        let (Some((_, by)), Member::Sums(pool)) = (counts::read_key(key), member) else { continue };
        if *by == *digest {
            let table = counts::table(pool)?;
            for (label, own) in table.columns().into_iter().flat_map(|l| table.rows().into_iter().map(move |o| (l, o)))
            {
                *annotated.entry(label.to_owned()).or_default() += table.count(own, label);
            }
        }
    }
    Ok(annotated)
}

/// The file of the tree that a version gives; the same bytes for the same version.
///
/// # Errors  those of [`shared`]
pub fn derive(members: &BTreeMap<ConditionKey, Member>) -> Result<Vec<u8>> {
    shared(members).map(|tree| to_bytes(&tree))
}

/// The file of a tree; the same bytes for the same tree.
pub fn to_bytes(tree: &SharedTree) -> Vec<u8> {
    serde_json::to_vec_pretty(tree).expect("names and numbers are JSON")
}

/// Checks what is only to be seen in a member of one of these parts.
///
/// # Errors  [`crate::Error::Decode`]
pub fn check(part: &Name, member: &Member) -> Result<()> {
    match (part.as_str(), member) {
        (MACHINES, Member::Tensors(tensors)) => Machines::from_tensors(tensors).map(drop),
        (POINTS, Member::Tensors(tensors)) => Points::from_tensors(tensors).map(drop),
        (COUNTS | ANNOTATIONS, Member::Sums(pool)) => counts::table(pool).map(drop),
        _ => Ok(()),
    }
}

/// The members of one part.
fn of_part<'a>(
    members: &'a BTreeMap<ConditionKey, Member>,
    part: &'static str,
) -> impl Iterator<Item = (&'a ConditionKey, &'a Member)> {
    members.iter().filter(move |(key, _)| matches!(key.section(), Section::Part(name) if name.as_str() == part))
}

fn name(text: &str) -> Name {
    text.parse().expect("the names of parts are names")
}

#[cfg(test)]
mod tests {
    use archipelago_hierarchy::Names;

    use super::*;
    use crate::{condition, part};

    /// Machines of one dimension; the types lie on a line.
    fn machines_of(place: u64, types: &[&str]) -> Member {
        let types = types.iter().zip(1..).map(|(label, at)| ((*label).to_owned(), vec![f64::from(at), -1.0]));
        Member::Tensors(Machines { place, types: types.collect(), components: None }.to_tensors())
    }

    fn counted(cells: &[(&str, Option<&str>, u64)]) -> Member {
        let mut pool = counts::empty();
        for &(own, found, n) in cells {
            (0..n).for_each(|_| counts::add(&mut pool, own, found).unwrap());
        }
        Member::Sums(pool)
    }

    type Members = BTreeMap<ConditionKey, Member>;

    /// How many cells of a label somebody's machines took for which of their own.
    type Counted<'a> = &'a [(&'a str, Option<&'a str>, u64)];

    /// What one site hands in: machines, and counts by those of others.
    fn site(key: &str, place: u64, types: &[&str], by: &[(&Member, Counted<'_>)]) -> Members {
        let key: ConditionKey = key.parse().unwrap();
        let own = (key.clone().in_section(Section::Part(name(MACHINES))), machines_of(place, types));
        let counts = by.iter().map(|(machines, cells)| {
            (counts::key(&key, COUNTS, &BlobRef::of(&machines.to_bytes())).unwrap(), counted(cells))
        });
        [own].into_iter().chain(counts).collect()
    }

    fn sites() -> [Members; 3] {
        let (north, south) = (machines_of(0, &["B", "T"]), machines_of(0, &["b", "odd"]));
        let late = machines_of(2, &["B cell"]);
        [
            site(
                "north/d/x",
                0,
                &["B", "T"],
                &[
                    (&south, &[("B", Some("b"), 40), ("T", None, 30)]),
                    (&late, &[("B", Some("B cell"), 40), ("T", None, 30)]),
                ],
            ),
            site(
                "south/d/y",
                0,
                &["b", "odd"],
                &[
                    (&north, &[("b", Some("B"), 20), ("odd", None, 9)]),
                    (&late, &[("b", Some("B cell"), 20), ("odd", None, 9)]),
                ],
            ),
            site(
                "east/d/z",
                2,
                &["B cell"],
                &[(&north, &[("B cell", Some("B"), 50)]), (&south, &[("B cell", Some("b"), 50)])],
            ),
        ]
    }

    fn merged(of: &[&Members]) -> Members {
        of.iter().fold(Members::new(), |all, one| condition::merge(&all, one).unwrap())
    }

    fn newick(members: &Members) -> String {
        shared(members).unwrap().tree.newick(Names::All)
    }

    const ALL: &str = "(B-north/d/x|b-south/d/y|B cell-east/d/z,T-north/d/x,odd-south/d/y)root";

    #[test]
    fn every_order_of_arrival_gives_the_same_bytes_and_places_decide_who_is_first() {
        let [a, b, c] = sites();
        let expected = derive(&merged(&[&a, &b, &c])).unwrap();
        assert_eq!(newick(&merged(&[&a, &b, &c])), ALL);
        for order in [[&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
            assert_eq!(derive(&merged(&order)).unwrap(), expected);
        }
        // By its key alone `east` would come first.
        let order: Vec<String> =
            shared(&merged(&[&a, &b, &c])).unwrap().data_sets.into_iter().map(|d| d.name).collect();
        assert_eq!(order, ["north/d/x", "south/d/y", "east/d/z"]);
    }

    #[test]
    fn a_withdrawal_leaves_the_tree_of_the_rest_and_counts_by_what_is_gone_say_nothing() {
        let [a, b, c] = sites();
        let rest = merged(&[&a, &c]);
        let without: Members = rest
            .iter()
            .filter(|(key, _)| {
                !key.batch().ends_with(&BlobRef::of(&machines_of(0, &["b", "odd"]).to_bytes()).digest.short())
            })
            .map(|(key, member)| (key.clone(), member.clone()))
            .collect();
        assert_eq!(without.len() + 2, rest.len());
        assert_eq!(derive(&rest).unwrap(), derive(&without).unwrap());
        assert_eq!(newick(&rest), "(B-north/d/x|B cell-east/d/z,T-north/d/x)root");
        // Handed in again under another place they are other machines: nobody has counted by them yet.
        let again = site("south/d/y", 2, &["b", "odd"], &[]);
        let told = shared(&merged(&[&rest, &again])).unwrap();
        assert_eq!(told.tree.newick(Names::All), newick(&rest));
        assert_eq!(told.data_sets.last().map(|data| data.name.as_str()), Some("south/d/y"));
        assert_eq!(newick(&merged(&[&rest, &b])), ALL);
    }

    #[test]
    fn cells_and_machines_grow_one_tree_and_of_both_the_cells_count() {
        let [a, b, c] = sites();
        let points = Points { place: 0, n_dims: 1, types: [("B".to_owned(), vec![1.0, 2.0])].into() };
        let key: ConditionKey = "north/d/x".parse().unwrap();
        let of_points = Member::Tensors(points.to_tensors());
        check(&name(POINTS), &of_points).unwrap();
        let mut members = merged(&[&a, &b, &c]);
        members.insert(key.clone().in_section(Section::Part(name(POINTS))), of_points.clone());
        // Nobody has counted by them yet: who counted by the machines counted by something else.
        let told = shared(&members).unwrap();
        assert_eq!(told.tree.newick(Names::All), "(B-north/d/x)root");
        let by = BlobRef::of(&of_points.to_bytes());
        let of_south: Counted<'_> = &[("b", Some("B"), 20), ("odd", None, 9)];
        for (site, cells) in [("south/d/y", of_south), ("east/d/z", &[("B cell", Some("B"), 20)])] {
            members.insert(counts::key(&site.parse().unwrap(), COUNTS, &by).unwrap(), counted(cells));
        }
        assert_eq!(newick(&members), "(B-north/d/x|b-south/d/y|B cell-east/d/z,odd-south/d/y)root");
        assert!(matches!(classifiers(&members).unwrap()[0], (ref first, _, Classifier::Points(_)) if *first == key));
    }

    #[test]
    fn a_card_says_whether_cells_are_taken() {
        let of = |sharing| {
            let mut layout = Layout::of_axes(Vec::new());
            assert!(!is_declared(&layout));
            declare(&mut layout, sharing);
            assert!(is_declared(&layout));
            let derivation = layout.derived[&name(VALUE)].clone();
            let reads = part::reads(&derivation, &Section::Part(name(POINTS)));
            assert!(part::reads(&derivation, &Section::Part(name(MACHINES))) && part::is_known(&derivation.function));
            (layout.rule(&Section::Part(name(POINTS))).is_some(), reads, derivation.function.to_string())
        };
        assert_eq!(of(Sharing::Machines), (false, false, FUNCTION.to_owned()));
        assert_eq!(of(Sharing::Points), (true, true, FUNCTION_WITH_POINTS.to_owned()));
    }

    #[test]
    fn annotations_by_the_tree_are_added_up_and_those_by_another_say_nothing() {
        let [a, b, c] = sites();
        let mut members = merged(&[&a, &b, &c]);
        let tree = shared(&members).unwrap();
        let annotated_by = |site: &str, tree: &SharedTree, cells: Counted<'_>| {
            let key = counts::key(&site.parse().unwrap(), ANNOTATIONS, &BlobRef::of(&to_bytes(tree))).unwrap();
            (key, counted(cells))
        };
        let at = |label| Some(label);
        members.extend([
            annotated_by("west/d/v", &tree, &[("cells", at("B-north/d/x"), 30), ("cells", at("Rejected (RE)"), 10)]),
            annotated_by("far/d/u", &tree, &[("cells", at("B-north/d/x"), 12), ("cells", None, 5)]),
            annotated_by("old/d/t", &shared(&merged(&[&a, &c])).unwrap(), &[("cells", at("B-north/d/x"), 99)]),
        ]);
        assert_eq!(shared(&members).unwrap(), tree, "annotations are nothing to a tree");
        let all = annotated(&members, &tree).unwrap();
        let expected = [("B-north/d/x", 42), ("Rejected (RE)", 10), ("root", 5)];
        assert_eq!(all, expected.map(|(label, n)| (label.to_owned(), n)).into());
        members.retain(|key, _| key.owner().as_str() != "far");
        assert_eq!(annotated(&members, &tree).unwrap()["B-north/d/x"], 30);
    }

    #[test]
    fn a_member_that_is_none_is_refused_in_words() {
        let refused = |part: &str, member: &Member| check(&name(part), member).unwrap_err().to_string();
        let told = refused(MACHINES, &Member::Tensors(crate::StateDict::new()));
        assert!(told.contains("`place`"), "{told}");
        let mut pool = counts::empty();
        pool.add("no second label", counts::N, 0, 1.0).unwrap();
        assert!(refused(COUNTS, &Member::Sums(pool)).contains("names no pair of labels"));
        check(&name(MACHINES), &machines_of(0, &["B"])).unwrap();
        check(&name(COUNTS), &counted(&[("B", None, 3)])).unwrap();
    }
}

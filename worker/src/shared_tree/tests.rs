//! Sites that learn a tree together, beside one place that has all their cells.

use archipelago_analysis::hierarchy::{CountTable, JOINING_ROOT, Names};
use archipelago_common::{condition, tree::Machines};
use ndarray::Array2;

use super::*;

type Members = BTreeMap<ConditionKey, Member>;

/// A data set: cells around the places of its types.
struct Site {
    key: ConditionKey,
    x: Array2<f32>,
    labels: Vec<Option<&'static str>>,
}

/// Places far from each other; two of them are the halves of what some call T.
fn place(at: &str) -> [f32; 3] {
    match at {
        "B" => [0.0, 0.0, 0.0],
        "CD4" => [9.0, 0.0, 0.0],
        "CD8" => [9.0, 5.0, 0.0],
        "odd" => [0.0, 9.0, 9.0],
        other => panic!("no place {other}"),
    }
}

impl Site {
    /// Sixty cells of each type, which is called as it is said to be.
    fn new(key: &str, types: &[(&str, Option<&'static str>)]) -> Self {
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for cell in 0..60 * types.len() {
            let (at, label) = types[cell % types.len()];
            let jitter = |salt: usize| ((cell * salt + key.len() * 7) % 53) as f32 / 53.0 - 0.5;
            rows.extend(place(at).iter().zip([31, 57, 13]).map(|(at, salt)| at + jitter(salt)));
            labels.push(label);
        }
        let x = Array2::from_shape_vec((labels.len(), 3), rows).unwrap();
        Self { key: key.parse().unwrap(), x, labels }
    }

    /// What it can hand in for a task for parts on a version.
    fn serves(&self, version: &Members) -> Members {
        self.gives(version, Asks::Parts)
    }

    /// The same where positions may leave.
    fn shares(&self, version: &Members) -> Members {
        self.gives_by(version, Asks::Parts, Sharing::Points)
    }

    fn gives(&self, version: &Members, asks: Asks) -> Members {
        self.gives_by(version, asks, Sharing::Machines)
    }

    fn gives_by(&self, version: &Members, asks: Asks, sharing: Sharing) -> Members {
        let cells: Vec<_> = self.labels.iter().copied().enumerate().collect();
        let cells = DataSetCells { key: &self.key, x: self.x.view(), cells: &cells };
        let merged = version.keys().filter(|key| key.owner() == self.key.owner()).cloned().collect();
        let added =
            TreeParts::new(version).unwrap().contributions(&cells, &Wanted { asks, sharing, merged: &merged }).unwrap();
        added.into_iter().map(|(key, contribution)| (key, contribution.value)).collect()
    }
}

fn sites() -> [Site; 3] {
    [
        Site::new("north/d/x", &[("B", Some("B")), ("CD4", Some("T")), ("CD8", Some("T"))]),
        Site::new("south/d/y", &[("B", Some("b")), ("CD4", Some("helper")), ("CD8", Some("killer"))]),
        Site::new("east/d/z", &[("B", Some("B")), ("CD4", Some("T")), ("CD8", Some("T")), ("odd", Some("odd"))]),
    ]
}

/// One task: what all hand in for a version, merged in an order.
fn task(version: &Members, order: &[&Site]) -> Members {
    order.iter().fold(version.clone(), |merged, site| condition::merge(&merged, &site.serves(version)).unwrap())
}

fn learned(order: &[&Site]) -> Members {
    task(&task(&Members::new(), order), order)
}

/// All orders in which three sites can hand in.
fn orders(sites: &[Site; 3]) -> [[&Site; 3]; 6] {
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].map(|order| order.map(|at| &sites[at]))
}

fn newick(version: &Members) -> String {
    TreeParts::new(version).unwrap().shared().tree.newick(Names::All)
}

const TREE: &str =
    "(B-east/d/z|B-north/d/x|b-south/d/y,(helper-south/d/y,killer-south/d/y)T-east/d/z|T-north/d/x,odd-east/d/z)root";

#[test]
fn three_sites_learn_one_tree_whatever_order_they_come_in() {
    let sites = sites();
    let expected = learned(&sites.each_ref());
    assert_eq!(newick(&expected), TREE);
    let bytes = tree::derive(&expected).unwrap();
    // Who was first with machines need not be first with counts.
    for first in orders(&sites) {
        let machines = task(&Members::new(), &first);
        for second in orders(&sites) {
            assert_eq!(tree::derive(&task(&machines, &second)).unwrap(), bytes);
        }
    }
    // Nobody has anything to add.
    assert_eq!(task(&expected, &sites.each_ref()), expected);
}

#[test]
fn the_tree_is_the_one_that_one_place_learns_from_the_same_tables() {
    let [a, b, c] = &sites();
    check_against_one_place(&learned(&[a, b, c]), [c, a, b]);
    check_against_one_place(&learned_by_cells(&[a, b, c]), [c, a, b]);
}

/// Edge by edge and digit by digit: the same counts as if all cells lay in one place, and the tree of these counts. Sites come in the
/// order of their keys, since all have the same place.
fn check_against_one_place(version: &Members, in_order: [&Site; 3]) {
    let parts = TreeParts::new(version).unwrap();
    let shared = parts.shared();
    assert_eq!(shared.tables.grow().unwrap(), shared.tree);
    assert_eq!(shared.tables.additions.len(), in_order.len() - 1);
    for (step, joining) in in_order.iter().enumerate().skip(1) {
        let judge = parts.judges.iter().find(|judge| judge.data_set == joining.key).unwrap();
        let mut pooled = Vec::new();
        for earlier in &in_order[..step] {
            let own = earlier.labels.iter().map(|label| unique(label.unwrap(), &earlier.key.to_string()));
            let found = judge.judge(earlier.x.view()).unwrap().into_iter();
            let name = joining.key.to_string();
            pooled.extend(own.zip(found.map(|l| l.map_or(JOINING_ROOT.to_owned(), |label| unique(label, &name)))));
        }
        let pooled = CountTable::of_cells(pooled.iter().map(|(own, found)| (own.as_str(), found.as_str())));
        assert_eq!(shared.tables.additions[step - 1].of_tree, pooled);
        assert_eq!(pooled.n_cells() as usize, in_order[..step].iter().map(|site| site.labels.len()).sum::<usize>());
    }
}

#[test]
fn a_site_that_leaves_leaves_the_tree_that_the_others_learn_without_it() {
    let [a, b, c] = &sites();
    let mut version = learned(&[a, b, c]);
    version.retain(|key, _| key.owner() != b.key.owner());
    assert_eq!(newick(&version), newick(&learned(&[a, c])));
    assert_eq!(tree::derive(&version).unwrap(), tree::derive(&learned(&[a, c])).unwrap());
}

/// One task in which all hand in whose policies let positions out.
fn share(version: &Members, order: &[&Site]) -> Members {
    order.iter().fold(version.clone(), |merged, site| condition::merge(&merged, &site.shares(version)).unwrap())
}

/// What comes of two of them.
fn learned_by_cells(order: &[&Site]) -> Members {
    share(&share(&Members::new(), order), order)
}

#[test]
fn sites_that_share_positions_learn_one_tree_and_cells_are_placed_as_in_one_place() {
    let sites = sites();
    let [a, b, c] = &sites;
    let version = learned_by_cells(&[a, b, c]);
    assert_eq!(newick(&version), TREE);
    let of_part = |part: &str| version.keys().filter(|key| key.to_string().contains(part)).count();
    assert_eq!((of_part("+tree-points/"), of_part("+tree-machines/"), of_part("+tree-counts/")), (3, 0, 6));
    let bytes = tree::derive(&version).unwrap();
    for first in orders(&sites) {
        let cells = share(&Members::new(), &first);
        for second in orders(&sites) {
            assert_eq!(tree::derive(&share(&cells, &second)).unwrap(), bytes);
        }
    }
    // One place: the tree trained on all cells, by the nearest of them.
    let parts = TreeParts::new(&version).unwrap();
    let in_order = [c, a, b];
    let name = |site: &&Site| site.labels.iter().map(|l| unique(l.unwrap(), &site.key.to_string())).collect::<Vec<_>>();
    let mut cells: Vec<_> = in_order.iter().flat_map(|site| name(site).into_iter().zip(site.x.rows())).collect();
    // Cells of a type travel one after another; the order within a type is theirs.
    cells.sort_by_key(|(label, _)| {
        (in_order.iter().position(|site| label.ends_with(&site.key.to_string())), label.clone())
    });
    let labels = Labels::from_names(&cells.iter().map(|(label, _)| label).collect::<Vec<_>>());
    let rows: Vec<f32> = cells.iter().flat_map(|(_, row)| row.to_vec()).collect();
    let x = Array2::from_shape_vec((cells.len(), 3), rows).unwrap();
    let tree = parts.shared().tree.clone();
    let alone = TrainedTree::train(x.view(), &labels, tree, &TrainOptions::default(), Rules::Corrected).unwrap();
    let query = Site::new("bare/d/v", &[("CD4", None), ("odd", None), ("B", None), ("CD8", None)]);
    let (found, expected) = (parts.place(query.x.view()).unwrap(), alone.predict(query.x.view(), 0.5).unwrap());
    assert_eq!(found.labels, expected.iter().map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(found.shares, expected.probabilities);
    assert!(found.labels.contains(&"helper-south/d/y".to_owned()) && found.shares.iter().any(|share| *share > 0.9));
    let far = Array2::from_shape_vec((1, 3), vec![-60.0, 70.0, -80.0]).unwrap();
    assert!(parts.place(far.view()).unwrap().labels[0].starts_with("Reject"));
}

#[test]
fn a_site_that_keeps_positions_takes_part_with_machines_and_whoever_withdraws_takes_its_cells_along() {
    let [a, b, c] = &sites();
    let task = |version: &Members| {
        let handed_in = [a.shares(version), b.serves(version), c.shares(version)];
        handed_in.iter().fold(version.clone(), |merged, site| condition::merge(&merged, site).unwrap())
    };
    let mixed = task(&task(&Members::new()));
    assert_eq!(newick(&mixed), TREE);
    // One data set gave no cells, so cells are placed by a vote.
    assert!(TreeParts::new(&mixed).unwrap().nearest.is_none());
    let placed = TreeParts::new(&mixed).unwrap().place(a.x.view()).unwrap();
    assert!(placed.labels.iter().filter(|label| *label == "B-east/d/z").count() > 50, "{:?}", placed.labels);
    let mut without = mixed.clone();
    without.retain(|key, _| key.owner() != b.key.owner());
    assert_eq!(tree::derive(&without).unwrap(), tree::derive(&learned_by_cells(&[a, c])).unwrap());
    assert!(TreeParts::new(&without).unwrap().nearest.is_some());
    // Cells of another space stop nobody.
    let wide = tree::Points { place: 9, n_dims: 8, types: [("wide".to_owned(), vec![1.0; 16])].into() };
    without.insert("evil/d+tree-points/x".parse().unwrap(), Member::Tensors(wide.to_tensors()));
    assert_eq!(newick(&without), newick(&learned_by_cells(&[a, c])));
}

#[test]
fn a_site_that_comes_later_joins_last() {
    let [a, b, c] = &sites();
    let version = learned(&[a, b, c]);
    let late = Site::new("a-late/d/w", &[("B", Some("b cell")), ("odd", Some("strange"))]);
    let after = task(&version, &[&late]);
    assert_eq!(newick(&after), TREE, "nobody has counted by its machines yet");
    let with = newick(&task(&after, &[a, b, c]));
    let expected = TREE.replace("|b-south/d/y", "|b-south/d/y|b cell-a-late/d/w");
    assert_eq!(with, expected.replace("odd-east/d/z)", "odd-east/d/z|strange-a-late/d/w)"));
}

#[test]
fn a_site_learns_where_its_cells_belong_and_the_others_how_many_belong_where() {
    let [a, b, c] = &sites();
    let version = learned(&[a, b, c]);
    let bare = Site::new("bare/d/v", &[("CD4", None), ("odd", None), ("B", Some("own name"))]);
    let handed_in = bare.gives(&version, Asks::Annotations);
    assert!(handed_in.keys().map(ToString::to_string).all(|key| key.starts_with("bare/d+tree-annotations/v~")));
    let after = condition::merge(&version, &handed_in).unwrap();
    let parts = TreeParts::new(&after).unwrap();
    assert_eq!(newick(&after), TREE, "whose cells are counted does not change the tree");
    let expected = ["B-east/d/z", "helper-south/d/y", "odd-east/d/z"].map(|node| (node.to_owned(), 60));
    assert_eq!(*parts.annotated(), expected.into());
    // What cells are called at home is told to nobody.
    let member = handed_in.values().next().and_then(Member::as_sums).unwrap();
    assert!(member.entries().all(|entry| entry.starts_with("cells\u{1f}")));
    // Nothing is left to count, until the tree is another.
    assert!(bare.gives(&after, Asks::Annotations).is_empty());
    let mut without = after.clone();
    without.retain(|key, _| key.owner() != c.key.owner());
    assert!(TreeParts::new(&without).unwrap().annotated().is_empty());
    assert_eq!(bare.gives(&without, Asks::Annotations).len(), 1);
    // Other tasks count no cell by the tree, and without a tree there is nothing to count by.
    assert!(bare.gives(&version, Asks::Columns).is_empty());
    let of_others = bare.gives(&version, Asks::Both);
    assert!(!of_others.is_empty() && of_others.keys().all(|key| !key.to_string().contains("annotations")));
    assert!(bare.gives(&Members::new(), Asks::Annotations).is_empty());
}

#[test]
fn cells_that_fit_nowhere_are_rejected_and_machines_of_another_space_stop_nobody() {
    let [a, b, c] = &sites();
    let mut version = learned(&[a, b, c]);
    let far = Array2::from_shape_vec((1, 3), vec![-60.0, 70.0, -80.0]).unwrap();
    let placed = TreeParts::new(&version).unwrap().place(far.view()).unwrap();
    assert_eq!(placed, Placed { labels: vec![REJECTED_BY_ERROR.to_owned()], shares: vec![0.0] });
    let wide = Machines { place: 9, types: [("wide".to_owned(), vec![1.0; 8])].into(), components: None };
    version.insert("evil/d+tree-machines/x".parse().unwrap(), Member::Tensors(wide.to_tensors()));
    assert_eq!(newick(&version), TREE);
    assert!(a.serves(&version).is_empty());
}

#[test]
fn a_type_with_one_cell_has_no_machine() {
    let mut site = Site::new("north/d/x", &[("B", Some("B")), ("CD4", Some("T"))]);
    site.labels[0] = Some("once");
    let handed_in = site.serves(&Members::new());
    let [(_, Member::Tensors(tensors))] = &handed_in.into_iter().collect::<Vec<_>>()[..] else { panic!("machines") };
    assert!(Machines::from_tensors(tensors).unwrap().types.keys().eq(["B", "T"]));
}

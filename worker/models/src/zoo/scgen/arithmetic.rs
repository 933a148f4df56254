//! What scGen does in place of surgery: arithmetic with means of latent states.
//!
//! A group of cells of one type moves by the difference between the anchor's mean and its own. All means are those of the
//! states before anything moves, so groups move independently: where the anchor is the reference, a site needs the
//! reference's means and counts and none of its cells, and sites that map apart get what they would get together.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::data::{Categorical, Dataset};

/// Which group of a cell type stands still.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anchor {
    /// The one with most cells, the first by name among equals: upstream's rule.
    Largest,
    /// The one of this name. A type that it lacks does not move.
    Named(String),
}

/// How far a group of one cell type moves.
#[derive(Clone, PartialEq, Debug)]
pub struct Shift {
    /// The cell type.
    pub label: String,
    /// The group.
    pub group: String,
    /// Its cells.
    pub n_cells: usize,
    /// What is added to their latent states, `[n_latent]`; zeros for the anchor.
    pub delta: Array1<f32>,
}

/// Number of cells and mean latent state of a group.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupMean {
    /// Its cells.
    pub n_cells: u64,
    /// Their mean, `[n_latent]`.
    pub mean: Array1<f64>,
}

/// Means by cell type and, within it, by group.
pub type Means = BTreeMap<String, BTreeMap<String, GroupMean>>;

/// The conditions of cells as groups, by their codes.
pub(super) fn groups(dataset: &Dataset<'_>) -> Categorical {
    let codes: Vec<u32> = dataset.conditions.iter().map(|&code| code as u32).collect();
    let n = codes.iter().max().map_or(0, |&most| most + 1);
    Categorical::new("condition", codes, (0..n).map(|code| code.to_string()).collect()).expect("every code has a name")
}

/// The means of latent states, `[n_cells, n_latent]`. Sums run in the order of the cells.
pub fn means(latent: ArrayView2<'_, f32>, labels: &Categorical, groups: &Categorical) -> Means {
    let mut sums: BTreeMap<(u32, u32), (u64, Array1<f64>)> = BTreeMap::new();
    for ((row, &label), &group) in latent.rows().into_iter().zip(labels.codes()).zip(groups.codes()) {
        let zero = || (0, Array1::zeros(latent.ncols()));
        let (n_cells, sum) = sums.entry((label, group)).or_insert_with(zero);
        *n_cells += 1;
        sum.zip_mut_with(&row, |sum, &value| *sum += f64::from(value));
    }
    let mut means = Means::new();
    for ((label, group), (n_cells, sum)) in sums {
        let (label, group) = (labels.names()[label as usize].clone(), groups.names()[group as usize].clone());
        means.entry(label).or_default().insert(group, GroupMean { n_cells, mean: sum / n_cells as f64 });
    }
    means
}

/// How every group moves, cell types and groups in order of their names. A type of one group has no shift.
pub fn shifts(means: &Means, anchor: &Anchor) -> Vec<Shift> {
    let mut shifts = Vec::new();
    for (label, groups) in means.iter().filter(|(_, groups)| groups.len() > 1) {
        let Some(still) = anchor.among(groups) else { continue };
        let still = &groups[still].mean;
        shifts.extend(groups.iter().map(|(group, own)| Shift::new(label, group, own, still)));
    }
    shifts
}

/// How groups move onto those of a reference, which stand still: onto the mean of the largest of these, the first by name among
/// equals. A type that the reference lacks has no shift. A group's shift does not depend on the other groups.
pub fn shifts_onto(reference: &Means, query: &Means) -> Vec<Shift> {
    let mut shifts = Vec::new();
    for (label, groups) in query {
        let Some(anchors) = reference.get(label) else { continue };
        let Some(still) = Anchor::Largest.among(anchors).map(|name| &anchors[name].mean) else { continue };
        shifts.extend(groups.iter().map(|(group, own)| Shift::new(label, group, own, still)));
    }
    shifts
}

/// Moves the latent states of all groups that have a shift.
pub fn shift(latent: &mut Array2<f32>, labels: &Categorical, groups: &Categorical, shifts: &[Shift]) {
    let by_name: BTreeMap<(&str, &str), &Shift> =
        shifts.iter().map(|shift| ((shift.label.as_str(), shift.group.as_str()), shift)).collect();
    for ((mut row, &label), &group) in latent.rows_mut().into_iter().zip(labels.codes()).zip(groups.codes()) {
        let names = (labels.names()[label as usize].as_str(), groups.names()[group as usize].as_str());
        if let Some(shift) = by_name.get(&names) {
            row += &shift.delta;
        }
    }
}

/// How latent states differ between two sets of cells: the mean of the second less that of the first, `[n_latent]`. `None` if one is
/// empty.
pub fn difference(control: ArrayView2<'_, f32>, stimulated: ArrayView2<'_, f32>) -> Option<Array1<f32>> {
    let mean = |cells: ArrayView2<'_, f32>| cells.mapv(f64::from).mean_axis(Axis(0));
    Some((mean(stimulated)? - mean(control)?).mapv(|difference| difference as f32))
}

impl Shift {
    fn new(label: &str, group: &str, own: &GroupMean, still: &Array1<f64>) -> Self {
        let delta = (still - &own.mean).mapv(|difference| difference as f32);
        Self { label: label.to_owned(), group: group.to_owned(), n_cells: own.n_cells as usize, delta }
    }
}

impl Anchor {
    fn among<'a>(&'a self, groups: &'a BTreeMap<String, GroupMean>) -> Option<&'a str> {
        match self {
            Self::Named(name) => groups.contains_key(name).then_some(name),
            Self::Largest => {
                let largest = groups.values().map(|group| group.n_cells).max()?;
                groups.iter().find(|(_, group)| group.n_cells == largest).map(|(name, _)| name.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn column(values: &[&str]) -> Categorical {
        Categorical::from_values(values)
    }

    /// Latent states of the types `a` (twice in `x`, once in `y`) and `b` (in `x` only).
    fn cells() -> (Array2<f32>, Categorical, Categorical) {
        (array![[1.0], [3.0], [10.0], [5.0]], column(&["a", "a", "a", "b"]), column(&["x", "x", "y", "x"]))
    }

    #[test]
    fn groups_move_onto_the_largest_and_lone_ones_stay() {
        let (mut latent, labels, groups) = cells();
        let found = shifts(&means(latent.view(), &labels, &groups), &Anchor::Largest);
        let told: Vec<_> = found.iter().map(|s| (s.label.as_str(), s.group.as_str(), s.n_cells, s.delta[0])).collect();
        assert_eq!(told, [("a", "x", 2, 0.0), ("a", "y", 1, -8.0)]);
        shift(&mut latent, &labels, &groups, &found);
        assert_eq!(latent, array![[1.0], [3.0], [2.0], [5.0]]);
    }

    #[test]
    fn the_first_of_equals_stands_still() {
        let latent = array![[1.0], [2.0]];
        let found = shifts(&means(latent.view(), &column(&["a", "a"]), &column(&["z", "k"])), &Anchor::Largest);
        assert_eq!(found.iter().map(|s| s.delta[0]).collect::<Vec<_>>(), [0.0, 1.0]);
    }

    #[test]
    fn a_named_anchor_moves_no_type_that_it_lacks() {
        let (latent, labels, groups) = cells();
        let means = means(latent.view(), &labels, &groups);
        assert!(shifts(&means, &Anchor::Named("nowhere".to_owned())).is_empty());
        let found = shifts(&means, &Anchor::Named("y".to_owned()));
        assert_eq!(found.iter().map(|s| s.delta[0]).collect::<Vec<_>>(), [8.0, 0.0]);
    }

    #[test]
    fn a_query_moves_onto_the_largest_group_of_the_reference_and_alone_as_together() {
        let of = |n_cells, mean| GroupMean { n_cells, mean: array![mean] };
        let reference =
            Means::from([("a".to_owned(), [("r".to_owned(), of(2, 7.0)), ("q".to_owned(), of(1, 100.0))].into())]);
        let (latent, labels, groups) = cells();
        let together = shifts_onto(&reference, &means(latent.view(), &labels, &groups));
        let told: Vec<_> = together.iter().map(|s| (s.label.as_str(), s.group.as_str(), s.delta[0])).collect();
        assert_eq!(told, [("a", "x", 5.0), ("a", "y", -3.0)]);
        let alone = means(latent.slice(ndarray::s![2..3, ..]), &column(&["a"]), &column(&["y"]));
        assert_eq!(shifts_onto(&reference, &alone), [together[1].clone()]);
        assert!(shifts_onto(&Means::new(), &alone).is_empty());
    }

    #[test]
    fn a_difference_needs_cells_on_both_sides() {
        let (a, b) = (array![[1.0, 0.0], [3.0, 0.0]], array![[0.0, 1.0]]);
        assert_eq!(difference(a.view(), b.view()), Some(array![-2.0, 1.0]));
        assert_eq!(difference(a.view(), Array2::zeros((0, 2)).view()), None);
    }
}

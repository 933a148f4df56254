//! A site's part in a tree of cell types that sites learn together: machines that tell its types apart, counts of what the
//! machines of others say of its cells, and what the tree says of them. `docs/trees.md` tells all of it.

mod machines;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use archipelago_analysis::{
    AnalysisError, Labels,
    hierarchy::{
        Jury, Node, Placement, Predictions, REJECTED_BY_ERROR, Rules, SharedTree, State, TrainOptions, TrainedTree,
        Tree, unique,
    },
};
use archipelago_anndata::{AnnData, Column};
use archipelago_common::{
    BlobRef, Name, Section,
    condition::ConditionKey,
    part::{Contribution, Member},
    task::Asks,
    tree::{self, Classifier, Sharing, counts},
};
use ndarray::{ArrayView2, Axis};

use self::machines::{machine_options, points, trained, travelling};
use crate::error::Result;

/// What a version says of trees.
#[derive(Debug)]
pub struct TreeParts {
    judges: Vec<Judge>,
    /// The tree with classifiers of its own, where all its data sets gave their cells.
    nearest: Option<TrainedTree>,
    shared: SharedTree,
    digest: BlobRef,
    annotated: BTreeMap<String, u64>,
}

/// The classifier of a data set, ready to judge cells.
#[derive(Debug)]
struct Judge {
    data_set: ConditionKey,
    /// Its file.
    blob: BlobRef,
    /// As it came.
    classifier: Classifier,
    trained: TrainedTree,
    /// Its types by the names that they have in the tree; none where it is not in the tree.
    types: BTreeSet<String>,
}

/// What a task gets of data sets.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What it asks for.
    pub asks: Asks,
    /// Whether a data set may give its cells, as the reference's card and the site's policy have it, or machines.
    pub sharing: Sharing,
    /// Keys of the owner that are there already.
    pub merged: &'a BTreeSet<ConditionKey>,
}

/// Cells of one condition in the latent space.
#[derive(Clone, Copy, Debug)]
pub struct DataSetCells<'a> {
    /// The condition.
    pub key: &'a ConditionKey,
    /// Positions, `[n_cells, n_latent]`.
    pub x: ArrayView2<'a, f32>,
    /// Each cell's place among those that a policy asks about, and its label, where it has one.
    pub cells: &'a [(usize, Option<&'a str>)],
}

/// Where a tree puts cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed {
    /// The node of each cell, or why it has none.
    pub labels: Vec<String>,
    /// The share of those who know the node's types that put it there.
    pub shares: Vec<f64>,
}

impl TreeParts {
    /// Reads the members of a version.
    ///
    /// # Errors  [`crate::Error::Common`] for members that are not what their parts hold
    pub fn new(members: &BTreeMap<ConditionKey, Member>) -> Result<Self> {
        let shared = tree::shared(members)?;
        let is_in_tree: BTreeMap<&str, bool> = shared
            .data_sets
            .iter()
            .map(|data| (data.name.as_str(), matches!(data.state, State::First | State::Joined)))
            .collect();
        let mut judges = Vec::new();
        for (data_set, blob, classifier) in tree::classifiers(members)? {
            let name = data_set.to_string();
            let in_tree = is_in_tree.get(name.as_str()).copied().unwrap_or_default();
            let types = classifier.types().into_iter().filter(|_| in_tree).map(|label| unique(label, &name)).collect();
            match trained(&classifier) {
                Ok(trained) => judges.push(Judge { data_set, blob, classifier, trained, types }),
                // Nobody counts by it, so it stays out of the tree.
                Err(error) => tracing::warn!(%data_set, %error, "cells that tell no type from another"),
            }
        }
        let n_in_tree = is_in_tree.values().filter(|is| **is).count();
        let nearest = nearest_of(&judges, &shared, n_in_tree)?;
        let digest = BlobRef::of(&tree::to_bytes(&shared));
        let annotated = tree::annotated(members, &shared)?;
        Ok(Self { judges, nearest, shared, digest, annotated })
    }

    /// How many cells of sites the tree puts at which node, as far as the members that were read tell.
    pub fn annotated(&self) -> &BTreeMap<String, u64> {
        &self.annotated
    }

    /// The tree, and how it came to be.
    pub fn shared(&self) -> &SharedTree {
        &self.shared
    }

    /// Dimensions of the latent space that the tree is of, once there is one.
    pub fn n_dims(&self) -> Option<usize> {
        self.judges.iter().find(|judge| !judge.types.is_empty()).map(|judge| judge.trained.n_dims)
    }

    /// Whether the tree has a type.
    pub fn has_types(&self) -> bool {
        !self.shared.tree.root().is_leaf()
    }

    /// Whether a task that asks for no columns gets anything of a data set, beside what the version has and what is there since.
    pub fn lacks_of(&self, key: &ConditionKey, labels: Option<&[Option<String>]>, wanted: &Wanted<'_>) -> bool {
        let Wanted { asks, merged, .. } = *wanted;
        let is_labelled = labels.is_some_and(|labels| labels.iter().any(Option::is_some));
        let others = self.judges.iter().filter(|judge| judge.data_set != *key);
        let mut counts = others.map(|judge| counts::key(key, tree::COUNTS, &judge.blob));
        let lacks =
            |key: &archipelago_common::Result<ConditionKey>| key.as_ref().is_ok_and(|key| !merged.contains(key));
        match asks {
            Asks::Annotations => self.has_types() && lacks(&counts::key(key, tree::ANNOTATIONS, &self.digest)),
            Asks::Both | Asks::Columns | Asks::Parts => {
                is_labelled && (!has_classifier(key, merged) || counts.any(|key| lacks(&key)))
            }
        }
    }

    /// What a task gets of a data set, beside what the version has and what is there since.
    ///
    /// # Errors  [`crate::Error::Analysis`] for cells of another space or that cannot be told apart, [`crate::Error::Common`]
    pub fn contributions(
        &self,
        cells: &DataSetCells<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<(ConditionKey, Contribution)>> {
        let added = match wanted.asks {
            Asks::Columns => Vec::new(),
            Asks::Both | Asks::Parts => self.of_labelled(cells, wanted)?,
            Asks::Annotations => self.annotations(cells)?.into_iter().collect(),
        };
        Ok(added.into_iter().filter(|(key, _)| !wanted.merged.contains(key)).collect())
    }

    /// What tells its types apart, and counts by that of others.
    fn of_labelled(&self, cells: &DataSetCells<'_>, wanted: &Wanted<'_>) -> Result<Vec<(ConditionKey, Contribution)>> {
        let (mut added, merged) = (Vec::new(), wanted.merged);
        if !has_classifier(cells.key, merged)
            && let Some(classifier) = self.classifier(cells, wanted.sharing)?
        {
            added.push((cells.key.clone().in_section(Section::Part(classifier.part.clone())), classifier));
        }
        for judge in self.fitting(cells.x).filter(|judge| judge.data_set != *cells.key) {
            let key = counts::key(cells.key, tree::COUNTS, &judge.blob)?;
            if !merged.contains(&key)
                && let Some(counted) = cells.counted(of_part(tree::COUNTS), &judge.judge(cells.x)?, |label| label)?
            {
                added.push((key, counted));
            }
        }
        Ok(added)
    }

    /// How many cells the tree puts at which node, whatever the site calls them.
    fn annotations(&self, cells: &DataSetCells<'_>) -> Result<Option<(ConditionKey, Contribution)>> {
        if !self.has_types() {
            return Ok(None);
        }
        let key = counts::key(cells.key, tree::ANNOTATIONS, &self.digest)?;
        let placed = self.place(cells.x)?;
        let found: Vec<Option<&str>> = placed.labels.iter().map(|label| Some(label.as_str())).collect();
        let counted = cells.counted(of_part(tree::ANNOTATIONS), &found, |_| Some(EVERY_CELL))?;
        Ok(counted.map(|counted| (key, counted)))
    }

    /// Where cells belong, by what most of those think that know.
    ///
    /// # Errors  [`crate::Error::Analysis`] for cells of another space
    pub fn place(&self, x: ArrayView2<'_, f32>) -> Result<Placed> {
        if let Some(nearest) = self.nearest.as_ref().filter(|nearest| nearest.n_dims == x.ncols()) {
            let found = nearest.predict(x, SURE_ENOUGH)?;
            return Ok(Placed { labels: found.iter().map(str::to_owned).collect(), shares: found.probabilities });
        }
        let judges: Vec<&Judge> = self.fitting(x).filter(|judge| !judge.types.is_empty()).collect();
        let said = judges.iter().map(|judge| judge.predict(x)).collect::<Result<Vec<_>>>()?;
        // The types of each by the names that they have in the tree, as its machines number them.
        let in_tree = |judge: &&Judge| -> Vec<String> {
            let name = judge.data_set.to_string();
            judge.types().map(|label| unique(label, &name)).collect()
        };
        let types: Vec<Vec<String>> = judges.iter().map(in_tree).collect();
        let jury = Jury::new(&self.shared.tree, judges.iter().map(|judge| &judge.types));
        let mut placed = Placed::default();
        let mut judgements = Vec::with_capacity(judges.len());
        for cell in 0..x.nrows() {
            let far = |found: &Predictions| found.placements[cell] == Placement::FarFromComponents;
            let (label, share) = if !said.is_empty() && said.iter().all(far) {
                (REJECTED_BY_ERROR, 0.0)
            } else {
                judgements.clear();
                let of_cell = said.iter().zip(&types).map(|(found, types)| named(types, found.placements[cell]));
                judgements.extend(of_cell.map(|label| label.map(String::as_str)));
                jury.place(&judgements)
            };
            placed.labels.push(label.to_owned());
            placed.shares.push(share);
        }
        Ok(placed)
    }

    /// The classifiers that can judge these cells. Whoever handed in others, of another latent space, stops nobody.
    fn fitting(&self, x: ArrayView2<'_, f32>) -> impl Iterator<Item = &Judge> {
        let n_dims = x.ncols();
        self.judges.iter().filter(move |Judge { data_set, trained, .. }| {
            let fits = trained.n_dims == n_dims;
            if !fits {
                tracing::warn!(%data_set, found = trained.n_dims, expected = n_dims, "a classifier of another latent space");
            }
            fits
        })
    }

    /// Machines for the types of a data set that has labels, or its cells: each type with the cells that it is made of.
    fn classifier(&self, cells: &DataSetCells<'_>, sharing: Sharing) -> Result<Option<Contribution>> {
        let mut n_cells: BTreeMap<&str, usize> = BTreeMap::new();
        cells.cells.iter().filter_map(|(_, label)| *label).for_each(|label| *n_cells.entry(label).or_default() += 1);
        for (label, _) in n_cells.iter().filter(|(_, n)| **n < FEWEST_CELLS) {
            tracing::warn!(key = %cells.key, label, "a type with one cell is left out");
        }
        let is_used = |label: &str| n_cells[label] >= FEWEST_CELLS;
        let used: Vec<(usize, &str)> = cells
            .cells
            .iter()
            .enumerate()
            .filter_map(|(row, (_, label))| Some((row, label.filter(|l| is_used(l))?)))
            .collect();
        if used.is_empty() {
            return Ok(None);
        }
        let rows: Vec<usize> = used.iter().map(|&(row, _)| row).collect();
        let names: Vec<&str> = used.iter().map(|&(_, label)| label).collect();
        let (x, place) = (cells.x.select(Axis(0), &rows), self.judges.len() as u64);
        let (part, tensors) = match sharing {
            Sharing::Points => (tree::POINTS, points(x.view(), &names, place).to_tensors()),
            Sharing::Machines => {
                let labels = Labels::from_names(&names);
                // Folds of a cross-validation want so many cells of some type.
                let use_re = n_cells.values().any(|&n| n >= N_FOLDS);
                let options = TrainOptions { use_re, ..machine_options() };
                let flat = Tree::flat(labels.names()).map_err(AnalysisError::from)?;
                let trained = TrainedTree::train(x.view(), &labels, flat, &options, Rules::Corrected)?;
                (tree::MACHINES, travelling(&trained, place).to_tensors())
            }
        };
        let mut made_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for &(row, label) in &used {
            let (place, _) = cells.cells[row];
            made_of.entry(String::new()).or_default().push(place);
            made_of.entry(tree::tensor_of(label)).or_default().push(place);
        }
        Ok(Some(Contribution { part: of_part(part), value: Member::Tensors(tensors), cells: made_of }))
    }
}

impl Judge {
    /// Where its classifier puts cells.
    fn predict(&self, x: ArrayView2<'_, f32>) -> Result<Predictions> {
        // Machines know no probabilities.
        let threshold = if matches!(self.classifier, Classifier::Points(_)) { SURE_ENOUGH } else { 0.0 };
        Ok(self.trained.predict(x, threshold)?)
    }

    /// Its types in the order in which its classifier numbers them, from 1.
    fn types(&self) -> impl Iterator<Item = &str> {
        self.trained.tree.root().children().iter().map(Node::name)
    }

    /// What each cell is to this classifier: a type by its own name, or none.
    fn judge(&self, x: ArrayView2<'_, f32>) -> Result<Vec<Option<&str>>> {
        let types: Vec<&str> = self.types().collect();
        let found = self.predict(x)?;
        Ok(found.placements.iter().map(|&placement| named(&types, placement).copied()).collect())
    }
}

/// The type at which a flat tree placed a cell, if it did.
fn named<T>(types: &[T], placement: Placement) -> Option<&T> {
    match placement {
        Placement::Node(number) => types.get((number as usize).checked_sub(1)?),
        Placement::FarFromComponents | Placement::FarFromCells => None,
    }
}

impl DataSetCells<'_> {
    /// Counts what was found of the cells that `own` gives a label; `None` without any.
    fn counted<S: AsRef<str>>(
        &self,
        part: Name,
        found: &[Option<S>],
        own: fn(Option<&str>) -> Option<&str>,
    ) -> Result<Option<Contribution>> {
        let (mut pool, mut made_of) = (counts::empty(), BTreeMap::<String, Vec<usize>>::new());
        for ((place, label), found) in self.cells.iter().zip(found) {
            let Some(label) = own(*label) else { continue };
            let found = found.as_ref().map(AsRef::as_ref);
            counts::add(&mut pool, label, found)?;
            made_of.entry(counts::entry(label, found)).or_default().push(*place);
        }
        Ok((!made_of.is_empty()).then_some(Contribution { part, value: Member::Sums(pool), cells: made_of }))
    }
}

fn of_part(part: &str) -> Name {
    part.parse().expect("the names of parts are names")
}

/// Whether a data set has given what tells its types apart.
fn has_classifier(data_set: &ConditionKey, there: &BTreeSet<ConditionKey>) -> bool {
    let key = |part| data_set.clone().in_section(Section::Part(of_part(part)));
    [tree::MACHINES, tree::POINTS].into_iter().any(|part| there.contains(&key(part)))
}

/// The tree as one place trains it that has the cells of all its data sets; none where one of them gave machines.
fn nearest_of(judges: &[Judge], shared: &SharedTree, n_in_tree: usize) -> Result<Option<TrainedTree>> {
    let mut all = Vec::new();
    for Judge { data_set, classifier, .. } in judges.iter().filter(|judge| !judge.types.is_empty()) {
        match classifier {
            Classifier::Points(points) => all.push((data_set.to_string(), points)),
            Classifier::Machines(_) => return Ok(None),
        }
    }
    let Some(n_dims) = all.first().map(|(_, points)| points.n_dims) else { return Ok(None) };
    if all.len() < n_in_tree || all.iter().any(|(_, points)| points.n_dims != n_dims) {
        return Ok(None);
    }
    // A type that found no place takes no part.
    let types = all.iter().flat_map(|(name, points)| {
        let named = points.types.iter().map(move |(label, cells)| (unique(label, name), cells.as_slice()));
        named.filter(|(label, _)| shared.tree.node(label).is_some())
    });
    machines::nearest(shared.tree.clone(), n_dims, types).map(Some)
}

/// Writes where a tree puts cells: columns of obs that begin with `key`.
///
/// # Errors  another number of labels than of cells
pub fn write_placed(
    adata: &mut AnnData,
    key: &str,
    labels: &[&str],
    shares: Vec<f64>,
) -> archipelago_anndata::Result<()> {
    adata.obs.insert(format!("{key}_label"), Column::categorical(labels))?;
    adata.obs.insert(format!("{key}_probability"), shares)?;
    Ok(())
}

/// One cell has no place that others of its type share.
const FEWEST_CELLS: usize = 2;
const N_FOLDS: usize = 5;
/// A decision of nearest cells of this probability or less is none.
const SURE_ENOUGH: f64 = 0.5;
/// Under which name cells are counted where nobody asks for their own labels.
const EVERY_CELL: &str = "cells";

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
    tree::{self, Machines, counts},
};
use ndarray::{ArrayView2, Axis};

use self::machines::{machine_options, trained, travelling};
use crate::error::Result;

/// What a version says of trees.
#[derive(Debug)]
pub struct TreeParts {
    judges: Vec<Judge>,
    shared: SharedTree,
    digest: BlobRef,
    annotated: BTreeMap<String, u64>,
}

/// The machines of a data set, ready to judge cells.
#[derive(Debug)]
struct Judge {
    data_set: ConditionKey,
    /// Its machines' file.
    blob: BlobRef,
    machines: TrainedTree,
    /// Its types by the names that they have in the tree; none where it is not in the tree.
    types: BTreeSet<String>,
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
        for (data_set, blob, machines) in tree::machines(members)? {
            let name = data_set.to_string();
            let in_tree = is_in_tree.get(name.as_str()).copied().unwrap_or_default();
            let types = machines.types.keys().filter(|_| in_tree).map(|label| unique(label, &name)).collect();
            judges.push(Judge { data_set, blob, machines: trained(machines)?, types });
        }
        let digest = BlobRef::of(&tree::to_bytes(&shared));
        let annotated = tree::annotated(members, &shared)?;
        Ok(Self { judges, shared, digest, annotated })
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
        self.judges.iter().find(|judge| !judge.types.is_empty()).map(|judge| judge.machines.n_dims)
    }

    /// Whether the tree has a type.
    pub fn has_types(&self) -> bool {
        !self.shared.tree.root().is_leaf()
    }

    /// Whether a task that `asks` for no columns gets anything of a data set, beside what the version has and those keys of its owner
    /// that are `merged` since.
    pub fn lacks_of(
        &self,
        key: &ConditionKey,
        labels: Option<&[Option<String>]>,
        merged: &BTreeSet<ConditionKey>,
        asks: Asks,
    ) -> bool {
        let is_labelled = labels.is_some_and(|labels| labels.iter().any(Option::is_some));
        let others = self.judges.iter().filter(|judge| judge.data_set != *key);
        let mut counts = others.map(|judge| counts::key(key, tree::COUNTS, &judge.blob));
        let lacks =
            |key: &archipelago_common::Result<ConditionKey>| key.as_ref().is_ok_and(|key| !merged.contains(key));
        match asks {
            Asks::Annotations => self.has_types() && lacks(&counts::key(key, tree::ANNOTATIONS, &self.digest)),
            Asks::Both | Asks::Columns | Asks::Parts => {
                is_labelled && (!merged.contains(&machines_key(key)) || counts.any(|key| lacks(&key)))
            }
        }
    }

    /// What a task that `asks` for this or that gets of a data set, beside what the version has and those keys of its owner that are
    /// `merged` since.
    ///
    /// # Errors  [`crate::Error::Analysis`] for cells of another space or that cannot be told apart, [`crate::Error::Common`]
    pub fn contributions(
        &self,
        cells: &DataSetCells<'_>,
        merged: &BTreeSet<ConditionKey>,
        asks: Asks,
    ) -> Result<Vec<(ConditionKey, Contribution)>> {
        let added = match asks {
            Asks::Columns => Vec::new(),
            Asks::Both | Asks::Parts => self.of_labelled(cells, merged)?,
            Asks::Annotations => self.annotations(cells)?.into_iter().collect(),
        };
        Ok(added.into_iter().filter(|(key, _)| !merged.contains(key)).collect())
    }

    /// Machines, and counts by those of others.
    fn of_labelled(
        &self,
        cells: &DataSetCells<'_>,
        merged: &BTreeSet<ConditionKey>,
    ) -> Result<Vec<(ConditionKey, Contribution)>> {
        let mut added = Vec::new();
        let key = machines_key(cells.key);
        if !merged.contains(&key)
            && let Some(machines) = self.machines(cells)?
        {
            added.push((key, machines));
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
        let judges: Vec<&Judge> = self.fitting(x).filter(|judge| !judge.types.is_empty()).collect();
        let said = judges.iter().map(|judge| Ok(judge.machines.predict(x, 0.0)?)).collect::<Result<Vec<_>>>()?;
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

    /// The machines that can judge these cells. Whoever handed in others, of another latent space, stops nobody.
    fn fitting(&self, x: ArrayView2<'_, f32>) -> impl Iterator<Item = &Judge> {
        let n_dims = x.ncols();
        self.judges.iter().filter(move |Judge { data_set, machines, .. }| {
            let fits = machines.n_dims == n_dims;
            if !fits {
                tracing::warn!(%data_set, found = machines.n_dims, expected = n_dims, "machines of another latent space");
            }
            fits
        })
    }

    /// Machines for the types of a data set that has labels, each with the cells that it is made of.
    fn machines(&self, cells: &DataSetCells<'_>) -> Result<Option<Contribution>> {
        let mut n_cells: BTreeMap<&str, usize> = BTreeMap::new();
        cells.cells.iter().filter_map(|(_, label)| *label).for_each(|label| *n_cells.entry(label).or_default() += 1);
        for (label, _) in n_cells.iter().filter(|(_, n)| **n < FEWEST_CELLS) {
            tracing::warn!(key = %cells.key, label, "a type with one cell has no machine");
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
        let labels = Labels::from_names(&used.iter().map(|&(_, label)| label).collect::<Vec<_>>());
        // Folds of a cross-validation want so many cells of some type.
        let use_re = n_cells.values().any(|&n| n >= N_FOLDS);
        let options = TrainOptions { use_re, ..machine_options() };
        let flat = Tree::flat(labels.names()).map_err(AnalysisError::from)?;
        let x = cells.x.select(Axis(0), &rows);
        let trained = TrainedTree::train(x.view(), &labels, flat, &options, Rules::Corrected)?;
        let machines = travelling(&trained, self.judges.len() as u64);
        let mut made_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for &(row, label) in &used {
            let (place, _) = cells.cells[row];
            made_of.entry(String::new()).or_default().push(place);
            made_of.entry(Machines::tensor_of(label)).or_default().push(place);
        }
        let part = of_part(tree::MACHINES);
        Ok(Some(Contribution { part, value: Member::Tensors(machines.to_tensors()), cells: made_of }))
    }
}

impl Judge {
    /// Its types in the order in which its machines number them, from 1.
    fn types(&self) -> impl Iterator<Item = &str> {
        self.machines.tree.root().children().iter().map(Node::name)
    }

    /// What each cell is to these machines: a type by its own name, or none.
    fn judge(&self, x: ArrayView2<'_, f32>) -> Result<Vec<Option<&str>>> {
        let types: Vec<&str> = self.types().collect();
        let found = self.machines.predict(x, 0.0)?;
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

/// The key of a data set's machines.
fn machines_key(data_set: &ConditionKey) -> ConditionKey {
    data_set.clone().in_section(Section::Part(of_part(tree::MACHINES)))
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
/// Under which name cells are counted where nobody asks for their own labels.
const EVERY_CELL: &str = "cells";

//! Surgery of cells that lack genes of the panel: the loss is over those that were measured.
//!
//! A gene that nobody measured is no gene without a count, and a decoder is not to be punished for it. So columns are trained in a
//! network over the measured genes, which is made of the reference's own tensors: what is missing is left out of every tensor that
//! has genes along some dimension, and stays in the columns as it started.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use archipelago_common::{BaseCard, Columns, StateDict, Tensor as Stored};
use tch::{Device, Tensor};

use crate::{
    blueprint::Blueprint,
    data::Cells,
    error::Result,
    extension::Extension,
    nn::{Builder, ConditionSource, Source, Trainable, from_tch, mean_name, shared_name, to_tch},
};

/// A reference over the genes that some cells have.
pub(super) struct Measured {
    /// What determines the module.
    pub(super) blueprint: Blueprint,
    /// The tensors of the base.
    pub(super) base: StateDict,
    /// The cells' counts.
    pub(super) counts: Csr,
    /// Positions of the genes in the panel, ascending.
    genes: Tensor,
    /// The dimensions of each tensor that are genes, by its name.
    along: BTreeMap<String, Vec<i64>>,
}

impl Measured {
    /// The reference over the genes that these cells have; `None` where they have all, and where a model's tensors depend on the number of
    /// genes in another way than by having one entry for each.
    ///
    /// # Errors  counts that do not fit the panel
    pub(super) fn new(
        (card, tensors): (&BaseCard, &StateDict),
        extension: &Extension,
        cells: &Cells<'_>,
    ) -> Result<Option<Self>> {
        let Some(genes) = cells.measured() else { return Ok(None) };
        let (whole, mut blueprint) = (Blueprint::extended(card, extension)?, Blueprint::extended(card, extension)?);
        let names: Vec<String> = genes.iter().map(|&gene| card.genes[gene].clone()).collect();
        blueprint.model.settle(whole.n_genes);
        blueprint.registry = blueprint.registry.on_panel(&card.genes, &names);
        blueprint.n_genes = genes.len();
        let Some(along) = gene_dimensions(&whole, &blueprint) else {
            tracing::info!(
                model = card.model,
                "genes that the cells lack count as zeros: the network cannot go without them"
            );
            return Ok(None);
        };
        let positions: Vec<i64> = genes.iter().map(|&gene| gene as i64).collect();
        let counts = cells.counts.select_cols(genes)?;
        let genes = Tensor::from_slice(&positions);
        let mut measured = Self { blueprint, base: StateDict::new(), counts, genes, along };
        measured.base = measured.narrowed(tensors)?;
        Ok(Some(measured))
    }

    /// Columns without the genes that are missing.
    pub(super) fn narrow(&self, columns: &Columns) -> Result<Columns> {
        let one = |(name, tensor): (&str, &Stored)| Ok((name.to_owned(), self.without(name, tensor, 1)?));
        Ok(Columns(columns.0.iter().map(one).collect::<Result<_>>()?))
    }

    /// The columns of all genes: trained ones where genes were measured, and what they started from.
    pub(super) fn widen(&self, trained: &Columns, start: &Columns) -> Result<Columns> {
        let one = |(name, tensor): (&str, &Stored)| {
            let (whole, own) = (to_tch(name, start.0.require("columns", name)?)?, to_tch(name, tensor)?);
            let whole = match self.dimensions(name, 1).as_slice() {
                [] => own,
                [dimension] => whole.index_copy(*dimension, &self.genes, &own),
                _ => unreachable!("a condition owns no matrix of genes by genes"),
            };
            Ok((name.to_owned(), from_tch(&whole)))
        };
        Ok(Columns(trained.0.iter().map(one).collect::<Result<_>>()?))
    }

    /// The tensors of a base, with the rows that it keeps of conditions.
    fn narrowed(&self, tensors: &StateDict) -> Result<StateDict> {
        let of_conditions = |name: &str| {
            self.along.keys().find_map(|own| match name {
                name if name == mean_name(own) => Some((own.clone(), 1)),
                name if name == shared_name(own) => Some((own.clone(), 0)),
                _ => None,
            })
        };
        let one = |(name, tensor): (&str, &Stored)| {
            let (own, n_rows) = of_conditions(name).unwrap_or_else(|| (name.to_owned(), 0));
            Ok((name.to_owned(), self.without(&own, tensor, n_rows)?))
        };
        tensors.iter().map(one).collect()
    }

    /// A tensor without the genes that are missing. It lacks the first `n_lacking` dimensions of the module's tensor of this name.
    fn without(&self, name: &str, tensor: &Stored, n_lacking: i64) -> Result<Stored> {
        let dimensions = self.dimensions(name, n_lacking);
        if dimensions.is_empty() {
            return Ok(tensor.clone());
        }
        let whole = to_tch(name, tensor)?;
        Ok(from_tch(&dimensions.iter().fold(whole, |tensor, &dimension| tensor.index_select(dimension, &self.genes))))
    }

    fn dimensions(&self, name: &str, n_lacking: i64) -> Vec<i64> {
        self.along.get(name).into_iter().flatten().map(|dimension| dimension - n_lacking).collect()
    }
}

/// The dimensions of a module's tensors that are genes: those that have another size over another panel. `None` where sizes follow from the
/// number of genes in another way, and where a site keeps tensors for itself. A model of genes and proteins is such: its encoder takes genes and
/// proteins as one, and shares of all genes, which would be others over fewer.
fn gene_dimensions(whole: &Blueprint, part: &Blueprint) -> Option<BTreeMap<String, Vec<i64>>> {
    let sizes = |blueprint: &Blueprint| -> Option<BTreeMap<String, Vec<i64>>> {
        let one = ConditionSource::Fresh(1);
        let builder = Builder::new(Source::Fresh, one, Trainable::Nothing, [0; 32], Device::Cpu);
        let axes = blueprint.axes().into_iter();
        let module = blueprint.build(axes.fold(builder, |builder, (name, _)| builder.with_axis(name, one))).ok()?;
        let weights = module.weights();
        weights.local().is_empty().then(|| weights.iter().map(|(name, w)| (name.to_owned(), w.tensor.size())).collect())
    };
    let (whole_sizes, part_sizes) = (sizes(whole)?, sizes(part)?);
    if !whole_sizes.keys().eq(part_sizes.keys()) {
        return None;
    }
    let expected = (whole.n_genes as i64, part.n_genes as i64);
    let along = whole_sizes.into_iter().zip(part_sizes.into_values()).map(|((name, whole), part)| {
        let mut dimensions = Vec::new();
        for ((dimension, n_whole), n_part) in (0..).zip(whole).zip(part).filter(|((_, whole), part)| whole != part) {
            if (n_whole, n_part) != expected {
                return None;
            }
            dimensions.push(dimension);
        }
        Some((name, dimensions))
    });
    along.collect()
}

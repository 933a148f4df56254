//! Terms as people read them: names, which are active, their genes, and which way is up.

use tch::{Kind, Tensor};

use super::{ExpimapModule, contributed::Contributed, new_terms::NewTerms};
use crate::data::GeneSets;

/// A dimension of the latent space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Term {
    /// Its name: that of its gene set, or `unconstrained_0` and so on; for one that was contributed, also that of its condition.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a term comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A gene set that the reference was trained with.
    Annotated,
    /// A gene set that was added.
    Constrained,
    /// It was added without a gene set.
    Unconstrained,
}

/// How a term's direction is told from its weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// By the sign of their sum.
    Sum,
    /// By whether more of them are above 0 or below.
    Counts,
}

/// A gene with a weight in a term.
#[derive(Clone, PartialEq, Debug)]
pub struct TermGene {
    /// Its place in the panel.
    pub gene: usize,
    /// The decoder's weight.
    pub weight: f32,
    /// Whether the term's set has it.
    pub is_in_set: bool,
}

impl Term {
    /// Those of the latent space, in order.
    pub(super) fn all(sets: &GeneSets, added: &[NewTerms], contributed: &[Contributed]) -> Vec<Self> {
        let named = |name: &String, origin| Self { name: name.clone(), origin };
        let new = |terms: &NewTerms, first: usize| {
            let (sets, n_free) = (terms.wanted().sets.terms(), terms.wanted().n_free);
            let constrained = sets.iter().map(|name| named(name, Origin::Constrained));
            let free = (first..first + n_free).map(|i| named(&format!("unconstrained_{i}"), Origin::Unconstrained));
            constrained.chain(free).collect::<Vec<_>>()
        };
        let mut all: Vec<Self> = sets.terms().iter().map(|name| named(name, Origin::Annotated)).collect();
        let mut n_free = 0;
        for terms in added {
            all.extend(new(terms, n_free));
            n_free += terms.wanted().n_free;
        }
        for Contributed { terms, condition, .. } in contributed {
            let of_condition = |term: Self| Self { name: format!("{} of {condition}", term.name), ..term };
            all.extend(new(terms, 0).into_iter().map(of_condition));
        }
        all
    }
}

impl ExpimapModule {
    /// Weights from terms to genes, `[n_genes, n_terms]`.
    pub fn term_weights(&self) -> Tensor {
        let of_added = |added: &NewTerms| {
            let constrained = added.constrained.as_ref().map(|masked| masked.weight.shallow_clone());
            constrained.into_iter().chain(added.free.as_ref().map(Tensor::shallow_clone)).collect::<Vec<_>>()
        };
        let all = std::iter::once(self.annotated.weight.shallow_clone()).chain(self.new_terms().flat_map(of_added));
        Tensor::cat(&all.collect::<Vec<_>>(), 1).detach()
    }

    /// 1 where a gene is in a term's set, else 0, like the weights; 0 throughout for a term without one.
    pub fn term_masks(&self) -> Tensor {
        let of_added = |added: &NewTerms| {
            let constrained = added.constrained.as_ref().map(|masked| masked.mask.shallow_clone());
            constrained.into_iter().chain(added.free.as_ref().map(Tensor::zeros_like)).collect::<Vec<_>>()
        };
        let all = std::iter::once(self.annotated.mask.shallow_clone()).chain(self.new_terms().flat_map(of_added));
        Tensor::cat(&all.collect::<Vec<_>>(), 1).detach()
    }

    /// Whether each term has a weight that is not 0; terms that were added always count.
    pub fn active_terms(&self) -> Vec<bool> {
        let has_weight = self.term_weights().not_equal(0.0).any_dim(0, false);
        let has_weight = Vec::<bool>::try_from(has_weight).expect("truths");
        let was_added = |term: &Term| term.origin != Origin::Annotated;
        self.terms().iter().zip(has_weight).map(|(term, has)| has || was_added(term)).collect()
    }

    /// The genes with a weight in a term, the largest first.
    pub fn term_genes(&self, term: usize) -> Vec<TermGene> {
        let column = |all: Tensor| Vec::<f32>::try_from(all.select(1, term as i64).contiguous()).expect("numbers");
        let (weights, mask) = (column(self.term_weights()), column(self.term_masks()));
        let genes = weights.into_iter().zip(mask).enumerate().filter(|(_, (weight, _))| *weight != 0.0);
        let one = |(gene, (weight, mask)): (usize, (f32, f32))| TermGene { gene, weight, is_in_set: mask > 0.0 };
        let mut genes: Vec<TermGene> = genes.map(one).collect();
        genes.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
        genes
    }

    /// For each term 1 where more of it means more of its genes, -1 where it means less, and 0 where neither can be told.
    pub fn directions(&self, by: Direction) -> Vec<f32> {
        let directions = match by {
            Direction::Sum => self.term_weights().sum_dim_intlist([0_i64].as_slice(), false, Kind::Float).sign(),
            Direction::Counts => (self.share_above_zero() - 0.5).sign(),
        };
        Vec::<f32>::try_from(directions).expect("numbers")
    }

    /// How one-sided each term's weights are, from 0 (as many above 0 as below) to 1 (all on one side).
    pub fn confidence(&self) -> Vec<f32> {
        Vec::<f32>::try_from((self.share_above_zero() - 0.5).abs() / 0.5).expect("numbers")
    }

    /// Of the weights that are not 0; a half where there are none.
    fn share_above_zero(&self) -> Tensor {
        let weights = self.term_weights();
        let count = |is: Tensor| is.to_kind(Kind::Float).sum_dim_intlist([0_i64].as_slice(), false, Kind::Float);
        let (above, all) = (count(weights.gt(0.0)), count(weights.not_equal(0.0)));
        (&above / all.clamp_min(1.0)).where_self(&all.gt(0.0), &all.full_like(0.5))
    }
}

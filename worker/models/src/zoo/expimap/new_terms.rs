//! Terms that are added to a trained model: some with gene sets, some without.
//!
//! In order of the latent state those with sets come first. A reference's own are under upstream's names; those of a site that maps are
//! under names of their own, so that both can be there, and those that were contributed are named by their condition, too.

use std::collections::BTreeMap;

use archipelago_common::{ConditionKey, StateDict};
use tch::Tensor;

use super::weights::{Masked, Outside};
use crate::{
    data::GeneSets,
    error::Result,
    kept,
    nn::{Builder, Init, Posterior, Role, VARIANCE_FLOOR, from_tch, to_tch},
};

/// What is added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// The terms with sets.
    pub(super) sets: GeneSets,
    /// Number of terms without.
    pub(super) n_free: usize,
}

/// Whose they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose<'a> {
    /// The reference's.
    Reference,
    /// The site's that maps.
    Site,
    /// Contributed with a condition.
    Condition(&'a ConditionKey),
}

/// The added part of the network.
#[derive(Debug)]
pub(super) struct NewTerms {
    wanted: Wanted,
    mean: Map,
    log_var: Map,
    pub(super) constrained: Option<Masked>,
    /// `[n_genes, n_free]`
    pub(super) free: Option<Tensor>,
}

#[derive(Debug)]
struct Map {
    weight: Tensor,
    bias: Tensor,
}

impl Wanted {
    /// Number of terms.
    pub(super) fn n_terms(&self) -> usize {
        self.sets.terms().len() + self.n_free
    }

    /// So many terms without sets, and one for each of these; nothing where that is no term.
    pub(super) fn some(sets: Option<GeneSets>, n_free: usize, n_genes: usize) -> Option<Self> {
        let wanted = Self { sets: sets.unwrap_or_else(|| GeneSets::none(n_genes)), n_free };
        (wanted.n_terms() > 0).then_some(wanted)
    }
}

/// What a site added, as the tensors tell that it kept; nothing where it added nothing.
///
/// # Errors  what is wrong with tensors of which some are missing, or no terms
pub(super) fn of_tensors(kept: &StateDict) -> std::result::Result<Option<Wanted>, String> {
    let shape = |upstream: &str| kept.get(&name(Whose::Site, upstream)).map(|tensor| tensor.shape().to_vec());
    let (mut sets, mut n_genes) = (BTreeMap::new(), None);
    for (tensor, mask) in kept.iter() {
        let Some((place, term)) = tensor.strip_prefix(SET).and_then(|name| name.split_once('/')) else { continue };
        let place: usize = place.parse().map_err(|_| format!("`{tensor}` has no place among the terms"))?;
        let is_member = mask.to_f32(tensor).map_err(|error| error.to_string())?;
        if n_genes.replace(is_member.len()).is_some_and(|n| n != is_member.len()) {
            return Err(format!("`{tensor}` is of {} genes, and others of more or fewer", is_member.len()));
        }
        let members = (0..).zip(is_member).filter(|(_, is)| *is > 0.0).map(|(gene, _)| gene).collect();
        sets.insert(place, (term.to_owned(), members));
    }
    let n_free = match shape(FREE).as_deref() {
        None => 0,
        Some(&[genes, n_free]) => {
            n_genes = n_genes.or(Some(genes));
            n_free
        }
        Some(other) => return Err(format!("`{FREE}` has {} dimensions, expected 2", other.len())),
    };
    let Some(n_genes) = n_genes else {
        let is_none = kept.iter().all(|(name, _)| !name.starts_with(OWN));
        return if is_none { Ok(None) } else { Err("there is no gene set, and no term without one".to_owned()) };
    };
    let (terms, members) = sets.into_values().unzip();
    let sets = GeneSets::new(terms, members, n_genes).map_err(|error| error.to_string())?;
    let wanted = Wanted { sets, n_free };
    let heads = HEADS.iter().flat_map(|head| [format!("{head}.weight"), format!("{head}.bias")]);
    let weights = (!wanted.sets.terms().is_empty()).then(|| CONSTRAINED.to_owned());
    match heads.chain(weights).find(|tensor| shape(tensor).is_none()) {
        Some(missing) => Err(format!("`{missing}` is missing")),
        None => Ok(Some(wanted)),
    }
}

/// The same of what a site keeps beside what others contributed.
///
/// # Errors  as [`of_tensors`]
pub(super) fn of_site(kept: &StateDict) -> std::result::Result<Option<Wanted>, String> {
    of_tensors(&kept::own(kept))
}

impl NewTerms {
    /// The added part for an encoder whose last layer has `n_hidden` units.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub(super) fn new(
        b: &mut Builder<'_>,
        whose: Whose<'_>,
        wanted: &Wanted,
        n_hidden: usize,
        outside: Outside,
    ) -> Result<Self> {
        let role = match whose {
            Whose::Reference => Role::Parameter,
            Whose::Site | Whose::Condition(_) => Role::Local,
        };
        let n_terms = wanted.n_terms();
        let mut map = |head: &str| -> Result<Map> {
            let (name, init) = (name(whose, head), Init::FanIn(n_hidden));
            let weight = b.tensor(&format!("{name}.weight"), &[n_terms, n_hidden], role, init)?;
            Ok(Map { weight, bias: b.tensor(&format!("{name}.bias"), &[n_terms], role, init)? })
        };
        let (mean, log_var) = (map(HEADS[0])?, map(HEADS[1])?);
        let n_genes = wanted.sets.n_genes();
        let free = match wanted.n_free {
            0 => None,
            n => Some(b.tensor(&name(whose, FREE), &[n_genes, n], role, Init::FanIn(n))?),
        };
        let constrained = match wanted.sets.terms() {
            [] => None,
            _ => Some(Masked::new(b, &name(whose, CONSTRAINED), &wanted.sets, role, outside)?),
        };
        if whose == Whose::Site {
            keep_sets(b, &wanted.sets)?;
        }
        Ok(Self { wanted: wanted.clone(), mean, log_var, constrained, free })
    }

    /// What was added.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The posterior of what the encoder's last layer says.
    pub(super) fn posterior(&self, hidden: &Tensor) -> Posterior {
        let map = |map: &Map| hidden.linear(&map.weight, Some(&map.bias));
        Posterior { mean: map(&self.mean), var: map(&self.log_var).exp() + VARIANCE_FLOOR }
    }

    /// What `z`, `[n, n_terms]`, adds to the genes, `[n, n_genes]`.
    pub(super) fn forward(&self, z: &Tensor) -> Tensor {
        let n_constrained = self.wanted.sets.terms().len() as i64;
        let constrained = self.constrained.as_ref().map(|masked| masked.forward(&z.narrow(1, 0, n_constrained)));
        let n_free = self.wanted.n_free as i64;
        let free = self.free.as_ref().map(|weight| z.narrow(1, n_constrained, n_free).matmul(&weight.tr()));
        constrained.into_iter().chain(free).reduce(|sum, part| sum + part).expect("there is a new term")
    }
}

/// A reference's tensors with room for more terms: what it has keeps its meaning, and what is new is fresh. Terms with sets come before
/// those without, so new ones of the former stand between what was there.
///
/// # Errors  tensors that are no matrices
pub(super) fn enlarged(before: &StateDict, fresh: &StateDict) -> Result<StateDict> {
    let columns =
        |dict: &StateDict, name: &str| dict.get(name).and_then(|w| w.shape().get(1).copied()).unwrap_or(0) as i64;
    let (with_sets, free) = (columns(before, CONSTRAINED), columns(before, FREE));
    let new_with_sets = columns(fresh, CONSTRAINED) - with_sets;
    let mut grown = before.clone();
    for (name, tensor) in fresh.iter() {
        let Some(old) = before.get(name) else {
            grown.insert(name, tensor.clone());
            continue;
        };
        if old.shape() == tensor.shape() {
            continue;
        }
        let (old, new) = (to_tch(name, old)?, to_tch(name, tensor)?);
        let parts = match name {
            // Weights to genes: one term, one column.
            CONSTRAINED | FREE => {
                let n_old = old.size()[1];
                vec![old.shallow_clone(), new.narrow(1, n_old, new.size()[1] - n_old)]
            }
            // The heads of the encoder: one term, one row.
            _ => vec![
                old.narrow(0, 0, with_sets),
                new.narrow(0, with_sets, new_with_sets),
                old.narrow(0, with_sets, free),
                new.narrow(0, with_sets + new_with_sets + free, new.size()[0] - with_sets - new_with_sets - free),
            ],
        };
        let along = i64::from([CONSTRAINED, FREE].contains(&name));
        grown.insert(name, from_tch(&Tensor::cat(&parts, along)));
    }
    Ok(grown)
}

/// The sets themselves among what the site keeps: all that it keeps are tensors, and their genes are needed again.
fn keep_sets(b: &mut Builder<'_>, sets: &GeneSets) -> Result<()> {
    let mask = sets.mask();
    for ((place, term), column) in sets.terms().iter().enumerate().zip(mask.columns()) {
        let values = Tensor::from_slice(&column.to_vec()).to_device(b.device());
        let kept = b.tensor(&format!("{SET}{place}/{term}"), &[column.len()], Role::Local, Init::Constant(0.0))?;
        tch::no_grad(|| kept.set_requires_grad(false).copy_(&values));
    }
    Ok(())
}

fn name(whose: Whose<'_>, upstream: &str) -> String {
    match whose {
        Whose::Reference => upstream.to_owned(),
        Whose::Site => format!("{OWN}{upstream}"),
        Whose::Condition(key) => kept::name(key, &name(Whose::Site, upstream)),
    }
}

/// The maps from the encoder's last layer to mean and logarithm of the variance.
const HEADS: [&str; 2] = ["encoder.expand_mean_encoder", "encoder.expand_var_encoder"];

/// Weights of terms without sets.
pub(super) const FREE: &str = "decoder.L0.ext_L.weight";
/// Weights of terms with sets.
pub(super) const CONSTRAINED: &str = "decoder.L0.ext_L_m.weight";
/// Before the names of what a site keeps.
pub(super) const OWN: &str = "own.";
/// Before a term's place among those with sets and its name, for its set.
pub(super) const SET: &str = "own.gene_set/";

#[cfg(test)]
mod tests {
    use archipelago_common::Tensor as Stored;

    use super::*;

    #[test]
    fn new_terms_with_sets_stand_before_those_without() {
        let dict = |heads: &[f32], with_sets: &[f32], free: &[f32]| {
            let row = |values: &[f32]| Stored::from_f32(&[1, values.len()], values);
            StateDict::from_iter([
                ("encoder.expand_mean_encoder.bias".to_owned(), Stored::from_f32(&[heads.len()], heads)),
                (CONSTRAINED.to_owned(), row(with_sets)),
                (FREE.to_owned(), row(free)),
                ("theta".to_owned(), row(&[7.0])),
            ])
        };
        let before = dict(&[1.0, 2.0], &[1.0], &[2.0]);
        let fresh = dict(&[10.0, 11.0, 12.0, 13.0, 14.0], &[10.0, 11.0], &[12.0, 13.0, 14.0]);
        let grown = enlarged(&before, &fresh).unwrap();
        assert_eq!(grown, dict(&[1.0, 11.0, 2.0, 13.0, 14.0], &[1.0, 11.0], &[2.0, 13.0, 14.0]));
    }
}

//! expiMap in scArches' files, and which of its tensors train there in surgery.

use std::collections::BTreeMap;

use archipelago_common::{StateDict, Tensor as Stored};
use serde_json::{Value as Json, json};
use tch::Tensor;

use super::{
    Configuration, Expimap, ExpimapConfig, config,
    module::ANNOTATED,
    new_terms::{self, CONSTRAINED, OWN, SET, Wanted},
};
use crate::{
    blueprint::Blueprint,
    data::{Encoding, GENE_SETS, GeneSets, NEW_GENE_SETS, Registry, slot},
    error::Result,
    formats::scarches::SavedFolder,
    model::Config,
    nn::{LayerRules, Weights},
    options::{OptionCard, Options as _},
    reference::Reference,
    surgery::upstream::{Flags, UpstreamRules},
    train::GradientUse,
    upstream::{Namespace, ScarchesModel},
    zoo::family::{Freeze, MAX_UNITS, saved},
};

/// The flags of `load_query_data`, with upstream's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreezeTerms {
    /// What all native models know.
    pub common: Freeze,
    /// Whether new terms train.
    pub unfreeze_ext: bool,
}

impl Default for FreezeTerms {
    fn default() -> Self {
        Self { common: Freeze::default(), unfreeze_ext: true }
    }
}

impl From<&Flags> for FreezeTerms {
    fn from(flags: &Flags) -> Self {
        Self { common: flags.into(), unfreeze_ext: flags.unfreeze_ext }
    }
}

impl FreezeTerms {
    /// Whether the tensor of this upstream name trains.
    pub fn trains(&self, upstream: &str) -> bool {
        let is_new = ["ext_L.weight", "ext_L_m.weight", "expand_"].iter().any(|part| upstream.contains(part));
        if is_new && self.common.freeze { self.unfreeze_ext } else { self.common.trains(upstream) }
    }
}

impl UpstreamRules for FreezeTerms {
    fn trainable(&self, weights: &Weights) -> Vec<(String, Tensor, GradientUse)> {
        Freeze::those(weights, |upstream| self.trains(upstream))
    }
}

impl LayerRules for FreezeTerms {
    fn keeps_statistics(&self, layer: &str) -> bool {
        self.common.keeps_statistics(layer)
    }

    fn dropout(&self, layer: &str, rate: f64) -> f64 {
        self.common.dropout(layer, rate)
    }
}

impl ScarchesModel for Expimap {
    fn class(&self) -> &'static str {
        "EXPIMAP"
    }

    fn told_by(&self) -> &'static [&'static str] {
        &["condition_key_", "mask_"]
    }

    /// Terms have no names there: they are in the cells' file. Without `TERMS` they are `term_0` and so on here.
    fn to_reference(&self, saved: &SavedFolder, namespace: &Namespace) -> Result<Reference> {
        let conditions = saved::conditions(saved, namespace)?;
        let reference = ExpimapConfig::parse(&options(saved))?;
        let (sets, new) = sets_of(saved)?;
        let mut registry = Registry::default().with(GENE_SETS, Encoding::GeneSets(sets));
        if let Some(new) = new {
            registry = registry.with(NEW_GENE_SETS, Encoding::GeneSets(new));
        }
        let model = Box::new(Configuration::new(reference, None));
        let blueprint = Blueprint { model, registry, n_genes: saved.genes.len() };
        saved::reference(config::NAME, saved, &blueprint, &conditions)
    }

    fn with_terms(&self, mut saved: SavedFolder, names: Vec<String>) -> Result<SavedFolder> {
        saved.attributes.insert(TERMS.to_owned(), json!(names));
        sets_of(&saved).map(|_| saved)
    }

    /// What a site keeps goes along, as new terms. What others contributed does not: scArches decodes every cell with every term.
    fn to_saved(&self, reference: &Reference) -> Result<SavedFolder> {
        let reference = &Reference { parts: BTreeMap::new(), ..reference.clone() };
        let card = &reference.base.card;
        let Blueprint { model, registry, .. } = Blueprint::of_card(card)?;
        let mut options = model.options();
        let stored = saved::tensors(reference)?;
        let of_weights = stored.iter().filter(|(name, _)| !name.starts_with(SET));
        let upstream_name = |name: &str| name.strip_prefix(OWN).unwrap_or(name).to_owned();
        let mut tensors: StateDict = of_weights.map(|(name, tensor)| (upstream_name(name), tensor.clone())).collect();
        let remembered = |field| registry.remembered::<slot::GeneSets>(field).cloned();
        let sets = remembered(GENE_SETS).expect("a reference has gene sets");
        let has_new = options["n_ext"] != 0 || remembered(NEW_GENE_SETS).is_some();
        let kept = reference.local.values().find(|kept| !kept.is_empty());
        let kept = kept.map_or(Ok(None), new_terms::of_tensors).map_err(SavedFolder::refuse)?;
        let new = match kept {
            Some(_) if has_new => {
                return Err(SavedFolder::refuse(
                    "the reference and the site both have new terms, and there is one place for them",
                ));
            }
            Some(Wanted { sets, n_free }) => {
                options.insert("n_ext".to_owned(), json!(n_free));
                options.insert("soft_ext_mask".to_owned(), json!(true));
                Some(sets).filter(|sets| !sets.terms().is_empty())
            }
            None => remembered(NEW_GENE_SETS),
        };
        for (name, sets, is_soft) in
            [(ANNOTATED, Some(&sets), "soft_mask"), (CONSTRAINED, new.as_ref(), "soft_ext_mask")]
        {
            if let Some(sets) = sets.filter(|_| options[is_soft] == false) {
                tensors.insert(name.replace(".weight", ".mask"), mask(sets));
            }
        }
        let mut attributes = saved::attributes(reference)?;
        attributes.extend(
            options
                .iter()
                .filter(|(name, _)| OF_CONSTRUCTOR.contains(&name.as_str()))
                .map(|(name, value)| (format!("{name}_"), value.clone())),
        );
        let n_free = options["n_ext"].as_u64().unwrap_or_default() as usize;
        let named = [Some(&sets), new.as_ref()].into_iter().flatten().flat_map(GeneSets::terms).cloned();
        let usual = usual_names(sets.terms().len(), new.as_ref().map_or(0, |new| new.terms().len()), n_free);
        let names: Vec<String> = named.chain(usual[usual.len() - n_free..].iter().cloned()).collect();
        if names != usual {
            attributes.insert(TERMS.to_owned(), json!(names));
        }
        attributes.insert("latent_dim_".to_owned(), json!(sets.terms().len()));
        attributes.insert("n_ext_m_".to_owned(), json!(new.as_ref().map_or(0, |new| new.terms().len())));
        attributes.insert("mask_".to_owned(), rows(&sets));
        attributes.insert("ext_mask_".to_owned(), new.as_ref().map_or(Json::Null, rows));
        Ok(SavedFolder::new(tensors, attributes, card.genes.clone()))
    }
}

/// The options among the attributes; what is not there, as in older folders, has its default.
fn options(saved: &SavedFolder) -> Config {
    let given = |card: OptionCard| {
        let value = saved.attributes.get(&format!("{}_", card.name)).filter(|_| OF_CONSTRUCTOR.contains(&card.name))?;
        Some((card.name.to_owned(), value.clone()))
    };
    ExpimapConfig::cards().into_iter().filter_map(given).collect()
}

/// The sets of the reference and, where there are some, those that were added; by the names that the folder has for them.
fn sets_of(saved: &SavedFolder) -> Result<(GeneSets, Option<GeneSets>)> {
    let known = members(saved, "mask_")?
        .ok_or_else(|| SavedFolder::refuse("`mask_` holds no term: an expiMap has one at least"))?;
    let new = members(saved, "ext_mask_")?.unwrap_or_default();
    // More is refused as an option.
    let n_free =
        saved.attributes.get("n_ext_").and_then(Json::as_u64).unwrap_or_default().min(MAX_UNITS as u64) as usize;
    let mut names = usual_names(known.len(), new.len(), n_free);
    if let Some(given) = saved.attributes.get(TERMS) {
        let given: Option<Vec<String>> = serde_json::from_value(given.clone()).ok();
        let given = given.ok_or_else(|| SavedFolder::refuse(format!("`{TERMS}` is no list of names")))?;
        // As scArches' `update_terms`: those that a reference was trained with, or all.
        let possible = [known.len(), known.len() + new.len(), names.len()];
        if !possible.contains(&given.len()) {
            let (n_given, n_known, n_all) = (given.len(), known.len(), names.len());
            let expected =
                if n_all > n_known { format!("{n_known}, or {n_all} with the new ones") } else { n_known.to_string() };
            return Err(SavedFolder::refuse(format!("there are {n_given} names of terms, expected {expected}")));
        }
        names.iter_mut().zip(given).for_each(|(name, given)| *name = given);
    }
    names.truncate(known.len() + new.len());
    let new_names = names.split_off(known.len());
    let n_genes = saved.genes.len();
    let new = (!new.is_empty()).then(|| GeneSets::new(new_names, new, n_genes)).transpose()?;
    Ok((GeneSets::new(names, known, n_genes)?, new))
}

/// What terms are called that nobody named: known ones, new ones with a set, new ones without.
fn usual_names(n_known: usize, n_new: usize, n_free: usize) -> Vec<String> {
    let kinds = [("term", n_known), ("constrained", n_new), ("unconstrained", n_free)];
    kinds.into_iter().flat_map(|(name, n)| (0..n).map(move |i| format!("{name}_{i}"))).collect()
}

/// The genes in each set of a mask, a row of 0 and 1 for each term; none where there is no mask.
fn members(saved: &SavedFolder, attribute: &str) -> Result<Option<Vec<Vec<u32>>>> {
    let Some(rows) = saved.attributes.get(attribute).and_then(Json::as_array).filter(|rows| !rows.is_empty()) else {
        return Ok(None);
    };
    let n_genes = saved.genes.len();
    let mut members = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let row = row.as_array().map(Vec::as_slice).unwrap_or_default();
        let is_member: Option<Vec<bool>> =
            row.iter().map(|value| [0.0, 1.0].contains(&value.as_f64()?).then_some(value.as_f64()? == 1.0)).collect();
        let Some(is_member) = is_member.filter(|row| row.len() == n_genes) else {
            let detail = format!("row {at} of `{attribute}` has {} entries, expected {n_genes} of 0 or 1", row.len());
            return Err(SavedFolder::refuse(detail));
        };
        members.push((0..).zip(is_member).filter(|(_, is)| *is).map(|(gene, _)| gene).collect());
    }
    Ok(Some(members))
}

/// A row of 0 and 1 for each term.
fn rows(sets: &GeneSets) -> Json {
    let mask = sets.mask();
    mask.columns()
        .into_iter()
        .map(|term| term.iter().map(|&is| is as u8).collect::<Vec<u8>>())
        .map(|row| json!(row))
        .collect()
}

/// A column of 0 and 1 for each term.
fn mask(sets: &GeneSets) -> Stored {
    let mask = sets.mask();
    Stored::from_f32(&[mask.nrows(), mask.ncols()], &mask.iter().copied().collect::<Vec<f32>>())
}

/// The attribute with the names of all terms, where they have some. It is ours: scArches passes over it.
const TERMS: &str = "terms_";
/// What of the options scArches keeps; the others it is told anew whenever it trains.
const OF_CONSTRUCTOR: [&str; 12] = [
    "hidden_layer_sizes",
    "dr_rate",
    "recon_loss",
    "decoder_last_layer",
    "use_l_encoder",
    "use_bn",
    "use_ln",
    "soft_mask",
    "n_ext",
    "soft_ext_mask",
    "use_hsic",
    "hsic_one_vs_all",
];

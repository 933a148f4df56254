//! expiMap in scArches' files, and which of its tensors train there in surgery.

use archipelago_common::{StateDict, Tensor as Stored};
use serde_json::{Value as Json, json};
use tch::Tensor;

use super::{
    Configuration, Expimap, ExpimapConfig, config,
    module::ANNOTATED,
    new_terms::{CONSTRAINED, OWN, SET},
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
    zoo::family::{Freeze, saved},
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
        Self { common: flags.into(), ..Self::default() }
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

    /// Terms have no names there: they are in the cells' file. Here they are `term_0` and so on.
    fn to_reference(&self, saved: &SavedFolder, namespace: &Namespace) -> Result<Reference> {
        let conditions = saved::conditions(saved, namespace)?;
        let reference = ExpimapConfig::parse(&options(saved))?;
        let sets = sets(saved, "mask_", "term")?
            .ok_or_else(|| SavedFolder::refuse("`mask_` holds no term: an expiMap has one at least"))?;
        let mut registry = Registry::default().with(GENE_SETS, Encoding::GeneSets(sets));
        if let Some(new) = self::sets(saved, "ext_mask_", "constrained")? {
            registry = registry.with(NEW_GENE_SETS, Encoding::GeneSets(new));
        }
        let model = Box::new(Configuration { reference, own: None });
        let blueprint = Blueprint { model, registry, n_genes: saved.genes.len() };
        saved::reference(config::NAME, saved, &blueprint, &conditions)
    }

    /// What a site keeps goes along, as new terms.
    fn to_saved(&self, reference: &Reference) -> Result<SavedFolder> {
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
        let new = match kept.and_then(super::new_terms::of_tensors) {
            Some(_) if has_new => {
                return Err(SavedFolder::refuse(
                    "the reference and the site both have new terms, and there is one place for them",
                ));
            }
            Some((n_ext, new)) => {
                options.insert("n_ext".to_owned(), json!(n_ext));
                options.insert("soft_ext_mask".to_owned(), json!(true));
                new
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

/// The sets of a mask, a row of 0 and 1 for each term; none where there is no mask.
fn sets(saved: &SavedFolder, attribute: &str, name: &str) -> Result<Option<GeneSets>> {
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
    let terms = (0..members.len()).map(|i| format!("{name}_{i}")).collect();
    Ok(Some(GeneSets::new(terms, members, n_genes)?))
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

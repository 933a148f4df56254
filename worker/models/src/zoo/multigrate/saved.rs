//! Multigrate in its own files, which are scvi-tools': from a saved model of 1.0.1 or 0.0.2 to a reference, and back to 1.0.1.
//!
//! A saved model does not say which of its features are whose: how many a modality has is read off its decoder, and what it is called
//! is not known. The first one is taken for gene expression.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{BaseCard, ConditionKey, Layout, Name, Section, StateDict, Tensor};
use serde_json::{Value as Json, json};

use super::{Curve, Multigrate, MultigrateConfig, Normalization, Release};
use crate::{
    blueprint::Blueprint,
    data::{CONTINUOUS, Encoding, OBS, Panel, RNA, Range, Registry, SIZE_FACTOR, slot},
    error::Result,
    formats::{
        pickle::Scalar,
        scvi_tools::{CategoricalField, Indices, SETUP_ANNDATA, SavedModel, SavedRegistry, VarNames},
    },
    model::{Config, Configured as _, Model as _},
    options,
    reference::Reference,
    upstream::{Class, Namespace, ScviToolsModel},
    zoo::family::{saved, scvi_tools::given_options},
};

impl ScviToolsModel for Multigrate {
    fn class(&self) -> &'static Class {
        &CLASS
    }

    fn to_reference(&self, saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
        let tensors = current(&saved.state_dict);
        let widths = widths(&tensors);
        let n_features: usize = widths.iter().sum();
        if widths.is_empty() || n_features != saved.genes().len() {
            let detail = format!("its decoders give {n_features} features, and it names {}", saved.genes().len());
            return Err(saved.refuse(detail));
        }
        let config = MultigrateConfig::parse(&given(self, saved, widths.len())?)?;
        let registry = registry(saved, &config, &widths)?;
        let axis = |covariate: &CategoricalField| -> Result<(Name, Vec<ConditionKey>)> {
            let name = axis_name(&covariate.key)?;
            let section = Section::Axis(name.clone());
            let keys = saved::keys(Some(&json!(covariate.names())), namespace)?;
            Ok((name, keys.into_iter().map(|key| key.in_section(section.clone())).collect()))
        };
        let axes = saved.registry.categorical_covariates.iter().map(axis).collect::<Result<Vec<_>>>()?;
        let tensors = ours(tensors, &config, &widths, &axes)?;
        let card = BaseCard {
            format: BaseCard::PLAIN_FORMAT,
            model: self.card().name.to_owned(),
            config: BTreeMap::new(),
            genes: saved.genes()[..widths[0]].to_vec(),
            batch_key: saved
                .registry
                .categorical_covariates
                .iter()
                .map(|c| c.key.as_str())
                .collect::<Vec<_>>()
                .join("_"),
            labels_key: None,
            labels: vec![],
            layout: Layout::plain(BTreeMap::new()),
            moves_embedding: config.moves_embedding(),
            training: BTreeMap::from([("scvi_tools_version".to_owned(), saved.version.to_string().into())]),
            recipe: None,
        };
        let blueprint = Blueprint { model: Box::new(config), registry, n_genes: widths[0] };
        let card = BaseCard { config: blueprint.to_card_config(), ..card };
        saved::assembled(card, &blueprint, (&[], axes), &tensors, &StateDict::new())
    }

    /// For 1.0.1. The size factor is the sum of the genes, unless the reference takes a column of them.
    fn to_saved(&self, reference: &Reference) -> Result<SavedModel> {
        let card = &reference.base.card;
        let blueprint = Blueprint::of_card(card)?;
        let config = MultigrateConfig::parse(&blueprint.model.options())?;
        let registry = &blueprint.registry;
        let mut names = card.genes.clone();
        for name in &config.modalities {
            names.extend(
                registry.remembered::<slot::Matrix>(name.as_str()).into_iter().flat_map(|panel| panel.names.clone()),
            );
        }
        let column = |key: &str, section: &Section| -> Result<CategoricalField> {
            let categories = saved::names(reference, section)?.into_iter().map(Scalar::Text).collect();
            Ok(CategoricalField { key: key.to_owned(), categories })
        };
        let covariates = match config.condition_keys.as_slice() {
            [] => vec![column(&card.batch_key, &Section::Condition)?],
            keys => keys
                .iter()
                .map(|key| column(column_of(registry, key), &Section::Axis(key.clone())))
                .collect::<Result<_>>()?,
        };
        let size_factor = registry.get(SIZE_FACTOR).map(|_| registry.obs_key(SIZE_FACTOR).unwrap_or(SIZE_FACTOR));
        let continuous = registry.remembered::<slot::Numbers>(CONTINUOUS).cloned().unwrap_or_default();
        let keys: Vec<&String> = covariates.iter().map(|covariate| &covariate.key).collect();
        // A column of size factors, or where the genes end of which they are the sums: one of the two.
        let setup = [
            ("size_factor_key", json!(size_factor)),
            (RNA_END, if size_factor.is_some() { Json::Null } else { json!(card.genes.len()) }),
            ("categorical_covariate_keys", json!(keys)),
            ("continuous_covariate_keys", if continuous.is_empty() { Json::Null } else { json!(continuous) }),
        ];
        Ok(SavedModel {
            version: WRITTEN_VERSION.parse().expect("it is a version"),
            model_name: Some(CLASS.name.to_owned()),
            state_dict: theirs(saved::tensors(reference)?, &config),
            var_names: VarNames::Flat(names.clone()),
            init_params: CLASS.arguments(arguments(&config, registry)),
            chosen: BTreeMap::new(),
            registry: SavedRegistry {
                setup_method: SETUP_ANNDATA.to_owned(),
                setup_args: BTreeMap::from(setup.map(|(name, value)| (name.to_owned(), value))),
                is_foreign: true,
                n_cells: card.training.get("n_cells").and_then(Json::as_u64),
                genes: names,
                size_factor_key: Some(size_factor.unwrap_or(COMPUTED_FACTORS).to_owned()),
                categorical_covariates: covariates,
                continuous_covariates: continuous,
                ..SavedRegistry::default()
            },
            unlabeled_category: None,
            is_trained: true,
            indices: Indices::default(),
        })
    }
}

/// The tensors under the names of 1.0.1: in 0.0.2 each module has its number behind a line, and one dispersion is that of the first
/// modality of counts.
fn current(tensors: &StateDict) -> StateDict {
    let renamed = |name: &str| {
        LEGACY_NAMES.iter().find_map(|(old, new)| {
            let (number, rest) = name.strip_prefix(old)?.split_once('.')?;
            number.parse::<usize>().ok().map(|number| format!("{new}.{number}.{rest}"))
        })
    };
    tensors.iter().map(|(name, tensor)| (renamed(name).unwrap_or_else(|| name.to_owned()), tensor.clone())).collect()
}

/// Features of each modality, by what its decoder ends in.
fn widths(tensors: &StateDict) -> Vec<usize> {
    let of = |m: usize| {
        let head = |part: &&str| tensors.get(&format!("decoders.{m}.{part}.bias"));
        HEADS.iter().find_map(head).and_then(|bias| bias.shape().first().copied())
    };
    (0..).map_while(of).collect()
}

/// Options of ours that the constructor was given.
fn given(model: &Multigrate, saved: &SavedModel, n_modalities: usize) -> Result<Config> {
    let mut options = given_options(saved, &model.options());
    let argument = |name: &str| saved.init_params.get(name);
    let is_legacy = saved.state_dict.get("encoder_0.mlp.fc_layers.Layer 0.0.weight").is_some();
    for left_out in ["ignore_covariates", "ignore_categories"] {
        if argument(left_out).and_then(Json::as_array).is_some_and(|names| !names.is_empty()) {
            return Err(saved.refuse(format!("its `{left_out}` leaves out covariates that were registered")));
        }
    }
    // No norm, and no curve, is a value there and not the absence of one.
    for (name, word) in [("normalization", json!(Normalization::None)), ("cont_cov_type", json!(Curve::None))] {
        if argument(name).is_some_and(Json::is_null) {
            options.insert(name.to_owned(), word);
        }
    }
    let keys: Vec<&String> = saved.registry.categorical_covariates.iter().map(|covariate| &covariate.key).collect();
    if keys.is_empty() {
        return Err(saved.refuse("it has no categorical covariates, so that surgery has nothing to add to it"));
    }
    let names = keys.iter().map(|key| axis_name(key)).collect::<Result<Vec<_>>>()?;
    let mut known = BTreeSet::new();
    if let Some(twice) = names.iter().find(|name| !known.insert(*name)) {
        return Err(saved.refuse(format!("two of its covariates would be called `{twice}`")));
    }
    if let Some(on) = argument("integrate_on").and_then(Json::as_str) {
        options.insert("integrate_on".to_owned(), json!(axis_name(on)?));
    }
    options.insert("condition_keys".to_owned(), json!(names));
    options
        .insert("modalities".to_owned(), json!((1..n_modalities).map(|m| format!("modality_{m}")).collect::<Vec<_>>()));
    let coefs = argument("loss_coefs").filter(|coefs| coefs.is_object());
    let coef = |name: &str| coefs.and_then(|coefs| coefs.get(name)).and_then(Json::as_f64);
    let of_modality = |m: usize| coef(&m.to_string()).unwrap_or(1.0);
    options.insert("modality_coefs".to_owned(), json!((0..n_modalities).map(of_modality).collect::<Vec<_>>()));
    let kl = if is_legacy { Some(LEGACY_KL) } else { None };
    for (option, value) in
        [("recon_coef", coef("recon")), ("kl_coef", coef("kl").or(kl)), ("integ_coef", coef("integ"))]
    {
        if let Some(value) = value {
            options.insert(option.to_owned(), json!(value));
        }
    }
    if is_legacy {
        options.insert("release".to_owned(), json!(Release::Legacy));
        options.insert("modality_alignment".to_owned(), json!("MMD"));
        // A null there is batch norm; only the word is none.
        if argument("normalization").is_some_and(Json::is_null) {
            options.insert("normalization".to_owned(), json!(Normalization::Batch));
        }
        for (name, default) in LEGACY_DEFAULTS {
            options.entry((*name).to_owned()).or_insert_with(|| serde_json::from_str(default).expect("it is JSON"));
        }
        if let Some(mmd) = argument("mmd").filter(|mmd| mmd.is_string()) {
            options.insert("alignment_type".to_owned(), mmd.clone());
        }
    }
    Ok(options)
}

/// The fields of the reference.
fn registry(saved: &SavedModel, config: &MultigrateConfig, widths: &[usize]) -> Result<Registry> {
    let (mut registry, mut start) = (Registry::default(), widths[0]);
    for (m, (name, width)) in (1..).zip(config.modalities.iter().zip(&widths[1..])) {
        let names = saved.genes()[start..start + width].to_vec();
        let panel = Panel { names, values: config.loss(m).values(), may_lack: true };
        registry = registry.with(name.as_str(), Encoding::Matrix(panel));
        start += width;
    }
    for (name, covariate) in config.condition_keys.iter().zip(&saved.registry.categorical_covariates) {
        let place = Some(format!("{OBS}{}", covariate.key));
        registry = registry.with(name.as_str(), Encoding::Axis).found_at(name.as_str(), place);
    }
    match saved.registry.continuous_covariates.as_slice() {
        [] => {}
        [one] => registry = registry.with(CONTINUOUS, Encoding::Numbers(vec![one.clone()])),
        several => {
            let detail =
                format!("its continuous covariates are {}, at most one fits its own network", several.join(", "));
            return Err(saved.refuse(detail));
        }
    }
    // A sum over the genes is computed here, too, and is no column of a query.
    let end = saved.registry.setup_args.get(RNA_END).and_then(Json::as_u64);
    let takes_factors = (0..widths.len()).any(|m| config.loss(m).is_of_counts());
    match (&saved.registry.size_factor_key, end) {
        (_, Some(end)) if end != widths[0] as u64 && takes_factors => {
            let detail = format!("its size factors are sums of {end} features, expected the {} of `{RNA}`", widths[0]);
            Err(saved.refuse(detail))
        }
        (Some(key), None) if takes_factors => {
            registry = registry.with(SIZE_FACTOR, Encoding::Number(Range::Positive));
            Ok(registry.found_at(SIZE_FACTOR, Some(format!("{OBS}{key}"))))
        }
        _ => Ok(registry),
    }
}

/// Dispersions in our shapes: a vector where no group has its own, and none of modalities that are no counts.
fn ours(
    mut tensors: StateDict,
    config: &MultigrateConfig,
    widths: &[usize],
    axes: &[(Name, Vec<ConditionKey>)],
) -> Result<StateDict> {
    let n_groups = config.integrates_on().map_or(1, |at| axes[at].1.len());
    let shared = tensors.remove("theta");
    let mut of_counts = (0..widths.len()).filter(|&m| config.loss(m).is_of_counts());
    if let (Some(shared), Some(first)) = (shared, of_counts.next()) {
        tensors.insert(format!("theta.{first}"), shared);
    }
    for (m, &width) in widths.iter().enumerate() {
        let name = format!("theta.{m}");
        let Some(theta) = tensors.remove(&name).filter(|_| config.loss(m).is_of_counts()) else { continue };
        let shape: &[usize] = if config.integrate_on.is_some() { &[width, n_groups] } else { &[width] };
        tensors.insert(name.clone(), Tensor::from_f32(shape, &theta.to_f32(&name)?));
    }
    Ok(tensors)
}

/// Dispersions in upstream's shapes, nothing among them.
fn theirs(mut tensors: StateDict, config: &MultigrateConfig) -> StateDict {
    for m in 0..config.n_modalities() {
        let name = format!("theta.{m}");
        let theta = match tensors.remove(&name) {
            None => Tensor::from_f32(&[0], &[]),
            Some(theta) if theta.shape().len() == 1 => {
                let values = theta.to_f32(&name).unwrap_or_default();
                Tensor::from_f32(&[values.len(), 1], &values)
            }
            Some(theta) => theta,
        };
        tensors.insert(name, theta);
    }
    tensors
}

/// Options as arguments of the constructor.
fn arguments(config: &MultigrateConfig, registry: &Registry) -> Config {
    let n = config.n_modalities();
    let mut arguments: Config = options::to_config(config);
    arguments.retain(|name, _| CLASS.signature.contains(&name.as_str()));
    for name in ["losses", "n_layers_encoders", "n_layers_decoders", "n_hidden_encoders", "n_hidden_decoders"] {
        if let Some(Json::Array(items)) = arguments.get_mut(name)
            && items.len() == 1
        {
            *items = vec![items[0].clone(); n];
        }
    }
    if let Some(key) = &config.integrate_on {
        arguments.insert("integrate_on".to_owned(), json!(column_of(registry, key)));
    }
    let none = [
        ("normalization", config.normalization == Normalization::None),
        ("cont_cov_type", config.cont_cov_type == Curve::None),
    ];
    for (name, _) in none.into_iter().filter(|(_, is_none)| *is_none) {
        arguments.insert(name.to_owned(), Json::Null);
    }
    let mut coefs = BTreeMap::from([
        ("recon".to_owned(), config.recon_coef),
        ("kl".to_owned(), config.kl_coef),
        ("integ".to_owned(), config.integ()),
    ]);
    coefs.extend((0..n).map(|m| (m.to_string(), config.modality_coef(m))));
    arguments.insert("loss_coefs".to_owned(), json!(coefs));
    arguments
}

/// A column's name as that of an axis, which has small letters.
fn axis_name(column: &str) -> Result<Name> {
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c) => c,
        _ => '_',
    };
    Ok(column.chars().map(letter).collect::<String>().parse()?)
}

/// The column of obs of an axis.
fn column_of<'a>(registry: &'a Registry, axis: &'a Name) -> &'a str {
    let source = registry.get(axis.as_str()).and_then(|field| field.source.as_deref());
    source.and_then(|source| source.strip_prefix(OBS)).unwrap_or(axis.as_str())
}

/// What decoders end in, by their losses.
const HEADS: [&str; 3] = ["recon_decoder", "recon_decoder.fc_layers.Layer 0.0", "mean_decoder.0"];
/// Modules of 0.0.2, and what they are called now.
const LEGACY_NAMES: [(&str, &str); 5] = [
    ("encoder_", "encoders"),
    ("decoder_", "decoders"),
    ("mu_", "mus"),
    ("logvar_", "logvars"),
    ("cat_covariate_embedding_", "cat_covariate_embeddings"),
];
/// Weight of the divergence in 0.0.2 where nothing is said.
const LEGACY_KL: f64 = 1e-6;
/// Options of 0.0.2 where nothing is said and the current release has others.
const LEGACY_DEFAULTS: &[(&str, &str)] =
    &[("z_dim", "15"), ("cond_dim", "10"), ("condition_encoders", "false"), ("cont_cov_type", "\"logsigm\"")];
/// The version of scvi-tools whose files ours are: Multigrate 1.0.1 needs no older one.
const WRITTEN_VERSION: &str = "1.4.3";
/// The argument by which size factors are sums of the first features.
const RNA_END: &str = "rna_indices_end";
/// The obs column that upstream writes such sums to.
const COMPUTED_FACTORS: &str = "size_factors";
/// Its class.
const CLASS: Class = Class {
    name: "MultiVAE",
    signature: &[
        "integrate_on",
        "condition_encoders",
        "condition_decoders",
        "normalization",
        "z_dim",
        "losses",
        "dropout",
        "cond_dim",
        "kernel_type",
        "loss_coefs",
        "cont_cov_type",
        "n_layers_cont_embed",
        "n_layers_encoders",
        "n_layers_decoders",
        "n_hidden_cont_embed",
        "n_hidden_encoders",
        "n_hidden_decoders",
        "modality_alignment",
        "alignment_type",
        "activation",
        "initialization",
        "ignore_covariates",
        "mix",
    ],
    further: "kwargs",
    of_module: &["mmd", "ignore_categories"],
    own_tensor: Some("cat_covariate_embeddings.0.weight"),
};

//! The network of a case, its minibatch and its noise, in double precision: the cases are of that.

use archipelago_models::{
    Config,
    data::{CONTINUOUS, Covariates, Encoding, Minibatch, Panel, Range, Registry, SIZE_FACTOR, Values},
    model::Module as _,
    nn::{Builder, ConditionSource, Source, Trainable},
    zoo::multigrate::{MultigrateConfig, MultigrateModule},
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};

use crate::case::{Case, Tolerance};

/// What a case's tensors are compared by.
pub(super) fn tolerance(case: &Case) -> Tolerance {
    let pair = &case.json["tolerance"]["f64"];
    Tolerance { rtol: pair["rtol"].as_f64().unwrap(), atol: pair["atol"].as_f64().unwrap() }
}

pub(super) fn is_legacy(case: &Case) -> bool {
    case.name.starts_with("legacy002_")
}

/// Our options of those that upstream's constructor got.
pub(super) fn config(case: &Case) -> MultigrateConfig {
    let given = &case.json["options"];
    let n_modalities = lengths(case).len();
    let n_categorical = categories(case, group_of(case)).len();
    let names = |of: &str, n: usize| (0..n).map(|i| format!("{of}{i}")).collect::<Vec<_>>();
    let keys = names("key", n_categorical);
    let mut options = Config::from([
        ("modalities".to_owned(), json!(names("modality", n_modalities)[1..])),
        ("condition_keys".to_owned(), json!(keys)),
        ("dropout".to_owned(), json!(0.0)),
    ]);
    for name in [
        "losses",
        "z_dim",
        "cond_dim",
        "condition_encoders",
        "condition_decoders",
        "activation",
        "n_layers_encoders",
        "n_layers_decoders",
        "n_hidden_encoders",
        "n_hidden_decoders",
        "cont_cov_type",
        "n_layers_cont_embed",
        "n_hidden_cont_embed",
        "mix",
        "modality_alignment",
        "alignment_type",
        "kernel_type",
    ] {
        if given.get(name).is_some_and(|value| !value.is_null()) {
            options.insert(name.to_owned(), given[name].clone());
        }
    }
    if let Some(norm) = given.get("normalization") {
        options.insert("normalization".to_owned(), norm.as_str().unwrap_or("none").into());
    }
    let mut kl = 1e-5;
    if is_legacy(case) {
        options.insert("release".to_owned(), json!("legacy"));
        kl = 1e-6;
        if let Some(of) = given["mmd"].as_str() {
            options.insert("alignment_type".to_owned(), of.into());
        }
        options.insert("modality_alignment".to_owned(), json!("MMD"));
    }
    let on = given["integrate_on_idx"].as_u64().map(|at| keys[at as usize].clone());
    let on = on.or_else(|| given["integrate_on"].as_str().map(|_| keys[1].clone()));
    if let Some(on) = on {
        options.insert("integrate_on".to_owned(), on.into());
    }
    let coefs = &given["loss_coefs"];
    options.insert("kl_coef".to_owned(), coefs["kl"].as_f64().unwrap_or(kl).into());
    let of_modality = |m: usize| coefs[m.to_string()].as_f64().unwrap_or(1.0);
    options.insert("modality_coefs".to_owned(), json!((0..n_modalities).map(of_modality).collect::<Vec<_>>()));
    if let Some(integ) = coefs["integ"].as_f64() {
        options.insert("integ_coef".to_owned(), integ.into());
    }
    MultigrateConfig::parse(&options).unwrap()
}

fn lengths(case: &Case) -> Vec<i64> {
    case.json["options"]["modality_lengths"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
}

/// Where the tensors of a case's network are.
pub(super) fn group_of(case: &Case) -> &'static str {
    if case.name.starts_with("surgery_") { "query/param/" } else { "param/" }
}

/// Numbers of categories, by the sizes of their tables.
fn categories(case: &Case, group: &str) -> Vec<i64> {
    let of = |k: usize| {
        let current = case.find(&format!("{group}cat_covariate_embeddings.{k}.weight"));
        current.or_else(|| case.find(&format!("{group}cat_covariate_embedding_{k}.weight")))
    };
    (0..).map_while(of).map(|table| table.size()[0]).collect()
}

fn registry(case: &Case) -> Registry {
    let panel = |m: usize, n: i64| Panel {
        names: (0..n).map(|i| format!("m{m}-{i}")).collect(),
        values: Values::Finite,
        may_lack: true,
    };
    let mut registry = Registry::default().with(SIZE_FACTOR, Encoding::Number(Range::Positive));
    for (m, &n) in lengths(case).iter().enumerate().skip(1) {
        registry = registry.with(format!("modality{m}"), Encoding::Matrix(panel(m, n)));
    }
    match case.find("in/cont_covs") {
        Some(columns) if columns.size()[1] > 0 => registry.with(CONTINUOUS, Encoding::Numbers(vec!["c".to_owned()])),
        _ => registry,
    }
}

/// Upstream's name of one of our tensors; in 0.0.2 each module has its number behind a line, and one dispersion serves all.
pub(super) fn upstream_name(case: &Case, ours: &str) -> String {
    let name = ours.strip_suffix(".row").or_else(|| ours.strip_suffix(".condition")).unwrap_or(ours);
    if !is_legacy(case) {
        return name.to_owned();
    }
    if name.starts_with("theta.") {
        return "theta".to_owned();
    }
    let words = [("encoders", "encoder"), ("decoders", "decoder"), ("mus", "mu"), ("logvars", "logvar")];
    let words = words.into_iter().chain([("cat_covariate_embeddings", "cat_covariate_embedding")]);
    for (ours, theirs) in words {
        if let Some(rest) = name.strip_prefix(&format!("{ours}.")) {
            return format!("{theirs}_{rest}");
        }
    }
    name.to_owned()
}

/// One of our tensors as upstream has it: dispersions have a column for each group there.
pub(super) fn as_upstream(ours: &str, tensor: &Tensor) -> Tensor {
    match (ours.starts_with("theta."), ours.ends_with(".condition")) {
        (true, true) => tensor.tr(),
        (true, false) => tensor.unsqueeze(1),
        (false, _) => tensor.shallow_clone(),
    }
}

/// The network of the tensors of a group, in double precision.
pub(super) fn module(case: &Case, group: &str, trainable: Trainable) -> MultigrateModule {
    let config = config(case);
    let mut builder = Builder::new(Source::Fresh, ConditionSource::Fresh(1), trainable, [0; 32], Device::Cpu);
    for (key, n) in config.condition_keys.iter().zip(categories(case, group)) {
        builder = builder.with_axis(key.clone(), ConditionSource::Fresh(n as usize));
    }
    let module = MultigrateModule::new(config, &registry(case), lengths(case)[0] as usize, builder).unwrap();
    for (name, weight) in module.weights().iter() {
        let theirs = case.tensor(&format!("{group}{}", upstream_name(case, name)));
        let theirs = match (name.starts_with("theta."), name.ends_with(".condition")) {
            (true, true) => theirs.tr(),
            (true, false) => theirs.squeeze_dim(1),
            (false, _) => theirs,
        };
        assert_eq!(theirs.size(), weight.tensor.size(), "{name}");
        let kind = if weight.tensor.kind() == Kind::Int64 { Kind::Int64 } else { Kind::Double };
        no_grad(|| weight.tensor.shallow_clone().set_data(&theirs.to_kind(kind).contiguous().copy()));
    }
    module
}

/// The cells of a case.
pub(super) fn minibatch(case: &Case) -> Minibatch {
    minibatch_of(case, Kind::Double)
}

/// The same, as numbers of this kind.
pub(super) fn minibatch_of(case: &Case, kind: Kind) -> Minibatch {
    let x = case.tensor("in/x").to_kind(kind);
    let mut at = 0;
    let blocks: Vec<Tensor> = lengths(case)
        .into_iter()
        .map(|n| {
            at += n;
            x.narrow(1, at - n, n).contiguous()
        })
        .collect();
    let codes = case.tensor("in/cat_covs").to_kind(Kind::Int64);
    let axes = (0..codes.size()[1]).map(|k| codes.select(1, k).contiguous()).collect();
    let condition = codes.select(1, 0).zeros_like();
    let field = |name: &str| match name {
        SIZE_FACTOR => case.tensor("in/size_factor").to_kind(kind),
        CONTINUOUS => case.tensor("in/cont_covs").to_kind(kind),
        other => blocks[other.trim_start_matches("modality").parse::<usize>().unwrap()].shallow_clone(),
    };
    let covariates = Covariates { condition, axes, categorical: vec![] };
    Minibatch::of_tensors(&registry(case), blocks[0].shallow_clone(), covariates, field)
}

/// Weight of the divergence in the case's steps.
pub(super) fn kl_weight(case: &Case) -> f64 {
    case.json["options"]["kl_weight"].as_f64().unwrap()
}

/// The optimiser of the case.
pub(super) fn adam(case: &Case) -> archipelago_models::train::AdamOptions {
    let optimizer: &Value = &case.json["optimizer"];
    let number = |name: &str| optimizer[name].as_f64().unwrap();
    assert_eq!(optimizer["kind"], "AdamW");
    archipelago_models::train::AdamOptions {
        rate: number("lr"),
        eps: number("eps"),
        weight_decay: number("weight_decay"),
        decay: archipelago_models::train::Decay::Decoupled,
    }
}

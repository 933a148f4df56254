//! The network of a case and its cells, in double precision: the cases are of that.

use archipelago_models::{
    Config,
    data::{Covariates, Encoding, Minibatch, ReceptorForm, Registry},
    model::Module as _,
    nn::{Builder, ConditionSource, Source, Trainable},
    train::{AdamOptions, Decay},
    upstream::{Layout, PartKind},
    zoo::mvtcr::{MvtcrConfig, MvtcrModule},
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, no_grad};

use crate::case::{Case, Tolerance};

/// What a case's tensors are compared by.
pub(super) fn tolerance(case: &Case) -> Tolerance {
    let pair = &case.json["tolerance"]["f64"];
    Tolerance { rtol: pair["rtol"].as_f64().unwrap(), atol: pair["atol"].as_f64().unwrap() }
}

/// Our options of those that upstream got. The activation is that of the joint layers; expression has its own, which no case changes.
pub(super) fn config(case: &Case) -> MvtcrConfig {
    let given = &case.json["options"];
    let mut options = Config::from([
        ("variant".to_owned(), case.json["kind"].clone()),
        ("conditional".to_owned(), json!(n_conditions(case) > 0)),
        ("encoding_layers".to_owned(), given["layers"].clone()),
        ("decoding_layers".to_owned(), given["layers"].clone()),
    ]);
    for name in ["dropout", "gene_dropout", "tcr_dropout"] {
        options.insert(name.to_owned(), json!(0.0));
    }
    for name in [
        "loss_weights",
        "activation",
        "batch_norm",
        "hdim",
        "shared_hidden",
        "zdim",
        "c_embedding_dim",
        "gene_hidden",
        "embedding_size",
        "num_heads",
        "forward_expansion",
        "use_embedding_for_cond",
    ] {
        if let Some(value) = given.get(name) {
            options.insert(name.to_owned(), value.clone());
        }
    }
    match given.get("beta_only").and_then(Value::as_bool) {
        Some(true) => drop(options.insert("chains".to_owned(), json!("beta"))),
        Some(false) => drop(options.insert("tcr_from_rna_only".to_owned(), json!(true))),
        None => {}
    }
    MvtcrConfig::parse(&options).unwrap()
}

/// Conditions of the network, those of the query among them.
pub(super) fn n_conditions(case: &Case) -> usize {
    let count = |name: &str| case.json[name].as_u64().unwrap_or_default() as usize;
    count("n_conditions") + count("n_conditions_reference") + count("n_new")
}

pub(super) fn registry(case: &Case) -> Registry {
    let (config, length) = (config(case), case.json["options"]["L"].as_u64().unwrap() as usize);
    match config.variant.has_tcr() {
        true => Registry::default()
            .with("receptor", Encoding::Receptor(ReceptorForm { chains: config.chains.list(), length })),
        false => Registry::default(),
    }
}

/// The network of the tensors of a group, in double precision.
pub(super) fn module(case: &Case, group: &str, trainable: Trainable) -> MvtcrModule {
    let conditions = ConditionSource::Fresh(n_conditions(case).max(1));
    let builder = Builder::new(Source::Fresh, conditions, trainable, [0; 32], Device::Cpu);
    let n_genes = case.json["options"]["genes"].as_u64().unwrap() as usize;
    let module = MvtcrModule::new(config(case), &registry(case), n_genes, builder).unwrap();
    for (upstream, parts) in Layout::of(module.weights()).iter() {
        let theirs = case.tensor(&format!("{group}{upstream}"));
        let mut at = 0;
        for part in parts {
            let slice = match parts.len() {
                1 => theirs.shallow_clone(),
                _ => theirs.narrow(-1, at, part.n_columns),
            };
            at += part.n_columns;
            let slice = if part.kind == PartKind::Conditions { slice.tr() } else { slice };
            let ours = module.weights().get(&part.name).unwrap();
            assert_eq!(slice.size(), ours.size(), "{upstream}");
            let kind = if ours.kind() == Kind::Int64 { Kind::Int64 } else { Kind::Double };
            no_grad(|| ours.shallow_clone().set_data(&slice.to_kind(kind).contiguous().copy()));
        }
    }
    module
}

/// The cells of a case: those that train, or with `reference_` those of the reference.
pub(super) fn minibatch(case: &Case, whose: &str) -> Minibatch {
    let x = case.tensor(&format!("in/{whose}rna"));
    let condition = match case.find(&format!("in/{whose}cond")) {
        Some(codes) => codes.to_kind(Kind::Int64),
        None => Tensor::zeros([x.size()[0]], (Kind::Int64, Device::Cpu)),
    };
    let covariates = Covariates { condition, axes: vec![], categorical: vec![] };
    let tokens = case.tensor(&format!("in/{whose}tcr")).to_kind(Kind::Int64);
    Minibatch::of_tensors(&registry(case), x, covariates, |_| tokens.shallow_clone())
}

/// The annealing factor of a step.
pub(super) fn annealing(case: &Case, step: usize) -> f64 {
    let epoch = case.json["epochs_of_steps"][step].as_f64().unwrap();
    (epoch / case.json["options"]["kl_annealing_epochs"].as_f64().unwrap()).min(1.0)
}

/// The optimiser of the case.
pub(super) fn adam(case: &Case) -> AdamOptions {
    let optimizer = &case.json["optimizer"];
    let number = |name: &str| optimizer[name].as_f64().unwrap();
    assert_eq!(optimizer["kind"], "Adam");
    AdamOptions { rate: number("lr"), eps: number("eps"), weight_decay: number("weight_decay"), decay: Decay::L2 }
}

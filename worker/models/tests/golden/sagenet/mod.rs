//! SageNet's networks against scArches 0.6.1 with PyTorch Geometric, in double precision.
//!
//! Cases without networks (network of genes, partitions) are tested with the code that they are about, in `archipelago-analysis`.

mod importance;
mod mapping;
mod networks;

use archipelago_common::StateDict;
use archipelago_models::{
    Config,
    zoo::sagenet::{Classifier, GeneGraph, Network, SagenetConfig},
};
use tch::Tensor;

use crate::case::{Case, Report, Tolerance, cases};

/// The options of a case, without dropout, or why there are none.
fn config(case: &Case) -> Result<SagenetConfig, String> {
    let options = &case.json["options"];
    let mut config = SagenetConfig { dropout_gnn: 0.0, dropout_fc: 0.0, ..SagenetConfig::default() };
    if options.is_null() {
        return Ok(config);
    }
    config.classifier = Classifier::of_upstream(options["classifier"].as_str().unwrap())?;
    let sizes = |name: &str| serde_json::from_value(options[name].clone()).unwrap();
    (config.n_hidden_gnn, config.n_hidden_fc) = (sizes("n_hidden_GNN"), sizes("n_hidden_FC"));
    config.k = options["K"].as_u64().unwrap() as usize;
    Ok(config)
}

/// The graph of an adjacency matrix.
fn graph(adjacency: &Tensor) -> GeneGraph {
    let n = adjacency.size()[0] as u32;
    let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
    let is_joined = |&(a, b): &(u32, u32)| adjacency.int64_value(&[a.into(), b.into()]) != 0;
    GeneGraph::new(n as usize, &pairs.filter(is_joined).collect::<Vec<_>>()).unwrap()
}

fn network(case: &Case, config: &SagenetConfig, params: &StateDict, adjacency: &str) -> Network {
    Network::stored(config, graph(&case.tensor(adjacency)), params).unwrap()
}

/// The tolerance of a case for numbers of this precision.
fn tolerance(case: &Case, precision: &str) -> Tolerance {
    let value = |name: &str| case.json["tolerance"][precision][name].as_f64().unwrap();
    Tolerance { rtol: value("rtol"), atol: value("atol") }
}

/// The same numbers as 32-bit floats.
fn single(tensors: &StateDict) -> StateDict {
    let rounded = |tensor: &archipelago_common::Tensor| {
        let values: Vec<f32> = tensor.numbers().map(|value| value as f32).collect();
        archipelago_common::Tensor::from_f32(tensor.shape(), &values)
    };
    let is_counter = |name: &str| name.ends_with("num_batches_tracked");
    let one = |(name, tensor): (&str, &archipelago_common::Tensor)| {
        (name.to_owned(), if is_counter(name) { tensor.clone() } else { rounded(tensor) })
    };
    tensors.iter().map(one).collect()
}

#[test]
fn every_case_belongs_to_a_test() {
    for case in cases("sagenet") {
        let name = case.name.as_str();
        let owners =
            [networks::is_one(name), importance::is_one(name), mapping::is_one(name), ELSEWHERE.contains(&name)];
        assert_eq!(owners.iter().filter(|owns| **owns).count(), 1, "`{name}`");
    }
}

#[test]
fn what_fails_upstream_is_refused_with_a_reason() {
    let mut n_refused = 0;
    for case in cases("sagenet") {
        let Some(error) = case.json["upstream_error"].as_str() else { continue };
        assert!(error.contains("invalid for input of size"), "{error}");
        let refused = SagenetConfig::parse(&Config::from([("classifier".to_owned(), "conv1d".into())]));
        assert!(refused.unwrap_err().to_string().contains("classifier"));
        assert!(Classifier::of_upstream("Conv1d").unwrap_err().contains("do not fit"));
        n_refused += 1;
    }
    assert!(n_refused > 0 || std::env::var_os("ARCHIPELAGO_GOLDEN").is_some());
}

/// Cases of `archipelago-analysis`.
const ELSEWHERE: [&str; 3] = ["glasso_grid", "glasso_list", "leiden_partitions"];

fn holds(report: &mut Report, case: &Case, what: &str, fact: bool) {
    report.holds(&format!("{}: {what}", case.name), fact);
}

//! Upstream's surgery as a whole: approximate, but usable. Its saved models, where it has things in another order than we.

use archipelago_common::{Tensor, progress::Silent};
use archipelago_models::{
    Categorical, CellConditions, Device, Extension, NoCheckpoints, Reference, Training,
    data::{CATEGORICAL, FieldValues},
    surgery::{Placement, UpstreamSurgery, upstream::Flags, upstream_surgery},
    train::FurtherOptions,
    train_reference,
    upstream::{Namespace, from_reference, to_reference},
    zoo,
};

use crate::{N_GENES, batch, cells, joined, key, options, reference, spec};

#[test]
fn it_moves_earlier_conditions_only_where_batch_norm_or_their_cells_take_part() {
    let (x, y) = (batch(3, 40), batch(4, 40));
    let reference = reference(zoo::model("scvi").unwrap());
    let query = joined(&[&x, &y]);
    let names: Vec<&str> = [["x"; 40], ["y"; 40]].concat();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    let map = |flags| {
        let (cells, spec) = (cells(&query), spec(2));
        let placement = Placement::End;
        let (conditions, spec, device) = (&conditions, &spec, Device::Cpu);
        let ask = UpstreamSurgery {
            cells: &cells,
            conditions,
            spec,
            flags,
            placement,
            device,
            extension: &Extension::default(),
        };
        upstream_surgery(&reference, &ask, &mut Silent, &mut NoCheckpoints).unwrap()
    };
    let frozen = map(Flags { freeze_batchnorm_decoder: true, ..Flags::default() }).reference;
    assert_eq!(frozen.columns.len(), 4);
    assert_eq!(frozen.columns[&key("a")], reference.columns[&key("a")]);
    let default = map(Flags::default());
    assert_eq!(default.history.len(), 2);
    let name = "decoder.px_decoder.fc_layers.Layer 0.1.weight";
    assert_ne!(default.reference.base.tensors.get(name), reference.base.tensors.get(name));
    let name = "z_encoder.mean_encoder.weight";
    assert_eq!(default.reference.base.tensors.get(name), reference.base.tensors.get(name));
    assert_eq!(default.reference.base.card.training["surgery"], "approximate: upstream's rules");
}

#[test]
fn covariates_are_imported_in_whatever_order_they_were_registered() {
    let namespace = Namespace { owner: "site".parse().unwrap(), dataset: "data".parse().unwrap() };
    let saved = from_reference(&with_covariates()).unwrap();
    let keys: Vec<&str> = saved.registry.categorical_covariates.iter().map(|covariate| &*covariate.key).collect();
    assert_eq!(keys, ["assay", "tissue"]);
    let mut turned = saved.clone();
    turned.registry.categorical_covariates.reverse();
    // Every layer takes them: three columns of assays and two of tissues are the last of each matrix.
    let takes_covariates = |name: &str| name.contains("fc_layers") && name.ends_with(".0.weight");
    let mut n_turned = 0;
    for (name, tensor) in saved.state_dict.iter().filter(|(name, _)| takes_covariates(name)) {
        let mut values = tensor.to_f32(name).unwrap();
        values.chunks_exact_mut(tensor.shape()[1]).for_each(|row| {
            let width = row.len();
            row[width - 5..].rotate_left(3);
        });
        turned.state_dict.insert(name, Tensor::from_f32(tensor.shape(), &values));
        n_turned += 1;
    }
    assert!(n_turned >= 4, "two layers of encoder and decoder: {n_turned}");
    let [expected, found] = [&saved, &turned].map(|saved| to_reference(saved, &namespace).unwrap());
    assert_eq!((found.base.tensors, found.columns), (expected.base.tensors, expected.columns));
    assert_eq!(found.base.card.config, expected.base.card.config);
}

/// A reference of scVI that takes two covariates, of three and of two categories.
fn with_covariates() -> Reference {
    let (a, b) = (batch(1, 40), batch(2, 40));
    let all = joined(&[&a, &b]);
    let named = |names: &[&str]| {
        let per_cell: Vec<&str> = (0..80).map(|cell| names[cell % names.len()]).collect();
        Categorical::from_values(&per_cell)
    };
    let covariates = [("assay".to_owned(), named(&["v1", "v2", "v3"])), ("tissue".to_owned(), named(&["gut", "lung"]))];
    let per_cell: Vec<_> = (0..80).map(|cell| key(if cell < 40 { "a" } else { "b" })).collect();
    let genes: Vec<String> = (0..N_GENES).map(|gene| format!("gene{gene}")).collect();
    let model = zoo::model("scvi").unwrap();
    let training = Training {
        model,
        options: &options(model),
        genes: &genes,
        cells: &cells(&all).with(CATEGORICAL, FieldValues::Categories(covariates.into())),
        conditions: &CellConditions::from_keys(&per_cell),
        batch_key: "batch",
        spec: &spec(1),
        further: &FurtherOptions::default(),
        compute: Device::Cpu.into(),
    };
    train_reference(&training, &mut Silent, &mut NoCheckpoints).unwrap().reference
}

//! What every model of the zoo must keep, whatever network it is.

#[path = "zoo/affine.rs"]
mod affine;
#[path = "zoo/archive.rs"]
mod archive;
#[path = "zoo/drawn.rs"]
mod drawn;
#[path = "zoo/expimap.rs"]
mod expimap;
#[path = "zoo/few_cells.rs"]
mod few_cells;
#[path = "zoo/labels.rs"]
mod labels;
#[path = "zoo/layout.rs"]
mod layout;
#[path = "zoo/missing.rs"]
mod missing;
#[path = "zoo/proteins.rs"]
mod proteins;
#[path = "zoo/results.rs"]
mod results;
#[path = "zoo/scgen.rs"]
mod scgen;
#[path = "zoo/scpoli.rs"]
mod scpoli;
#[path = "zoo/shot.rs"]
mod shot;
#[path = "zoo/trvae.rs"]
mod trvae;
#[path = "zoo/upstream.rs"]
mod upstream;

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use archipelago_common::{
    Base, Columns, ConditionKey, DType, Layout, check,
    layout::Growth,
    progress::{Continue, EpochReport, Silent},
    state_dict::TensorSpec,
    task::{ColumnInit, TrainSpec, Warmup},
};
use archipelago_models::{
    Categorical, CellConditions, Cells, CheckpointStore, Compute, Config, Device, Engine, Error, Moments,
    NoCheckpoints, Query, Reference, Result, Surgery, Trained, Training,
    data::{
        AMINO_ACIDS, Chain, Features, Field, FieldKind, GENE_SETS, GeneSets, LABELS, Need, RNA, Receptors, Registry,
    },
    model::Model,
    surgery, surgery_of_many,
    train::{Aim, FurtherOptions, TrainPlan},
    train_reference,
    zoo::{self, ZOO, space::COORDINATES, totalvi::PROTEINS},
};
use ndarray::Array2;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Cells of three types with a batch effect on half of the genes.
struct Batch {
    counts: Csr,
    labels: Vec<String>,
    proteins: Features,
}

impl Batch {
    /// Cells whose proteins follow their types; a cell without counts has none of them either.
    fn of(counts: Csr, labels: Vec<String>) -> Self {
        let totals = counts.row_sums();
        let protein = |(cell, protein): (usize, usize)| {
            let is_marker = labels[cell].ends_with(&(protein % 3).to_string());
            let level = if is_marker { 20 } else { 2 } + (cell * 7 + protein * 5) % 4;
            if totals[cell] > 0.0 { level as f32 } else { 0.0 }
        };
        let values = Array2::from_shape_fn((labels.len(), N_PROTEINS), protein);
        let proteins = Features::dense(protein_names(), &values).unwrap();
        Self { counts, labels, proteins }
    }

    /// The same cells, not stained for one of the proteins.
    fn without_protein(self, protein: usize) -> Self {
        let mut values = self.proteins.to_dense();
        values.column_mut(protein).fill(0.0);
        Self { proteins: Features::dense(protein_names(), &values).unwrap(), ..self }
    }
}

fn protein_names() -> Vec<String> {
    (0..N_PROTEINS).map(|protein| format!("protein{protein}")).collect()
}

fn batch(seed: u64, n_cells: usize) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let effect: Vec<f32> =
        (0..N_GENES).map(|gene| if gene % 2 == 0 { rng.random_range(0.5..2.0) } else { 1.0 }).collect();
    let (mut dense, mut labels) = (Vec::new(), Vec::new());
    for cell in 0..n_cells {
        let kind = cell % 3;
        labels.push(format!("type{kind}"));
        for (gene, effect) in effect.iter().enumerate() {
            let mean = if gene % 3 == kind { 4.0 } else { 0.7 } * effect;
            dense.push((rng.random_range(0.0..2.0_f32) * mean).floor());
        }
    }
    let batch = Batch::of(Csr::from_dense(n_cells, N_GENES, &dense).unwrap(), labels);
    // Every other batch lacks a protein, so that what happens then happens in every test.
    if seed.is_multiple_of(2) { batch.without_protein(N_PROTEINS - 1) } else { batch }
}

fn key(batch: &str) -> ConditionKey {
    format!("site/data/{batch}").parse().unwrap()
}

fn cells(batch: &Batch) -> Cells<'_> {
    Cells::new(&batch.counts)
        .with(LABELS, Categorical::from_values(&batch.labels))
        .found_at(LABELS, "obs/cell_type")
        .with(PROTEINS, batch.proteins.clone())
        .with(GENE_SETS, gene_sets())
        .with(COORDINATES, places(batch))
        .with("receptor", receptors(batch))
}

/// Cells of one type lie together, the types apart.
fn places(batch: &Batch) -> Array2<f32> {
    Array2::from_shape_fn((batch.labels.len(), 2), |(cell, axis)| {
        let (kind, nth) = (cell % 3, cell / 3);
        if axis == 0 { (100 * kind + nth % 5) as f32 } else { (nth / 5) as f32 }
    })
}

/// Receptors of clones of two cells each; the beta chain is longer.
fn receptors(batch: &Batch) -> Receptors {
    let sequence = |cell: usize, letters: &str| {
        let digits = [cell / 8 % 4, cell / 2 % 4].map(|digit| AMINO_ACIDS.as_bytes()[digit] as char);
        format!("C{}{letters}", digits.iter().collect::<String>())
    };
    let chain = |letters: &str| (0..batch.labels.len()).map(|cell| sequence(cell, letters)).collect();
    Receptors::new(vec![(Chain::Alpha, chain("F")), (Chain::Beta, chain("SYF"))])
}

/// A set for the marker genes of each type, and one that crosses them.
fn gene_sets() -> GeneSets {
    let genes = |is_one: &dyn Fn(u32) -> bool| (0..N_GENES as u32).filter(|gene| is_one(*gene)).collect();
    let of_type = |kind: u32| genes(&move |gene| gene % 3 == kind);
    let members = vec![of_type(0), of_type(1), of_type(2), genes(&|gene| gene % 2 == 0)];
    let terms = ["TYPE_0", "TYPE_1", "TYPE_2", "EVEN"].map(str::to_owned).to_vec();
    GeneSets::new(terms, members, N_GENES).unwrap()
}

/// The cells of several batches, one after the other.
fn joined(batches: &[&Batch]) -> Batch {
    let proteins = Csr::vstack(N_PROTEINS, batches.iter().map(|batch| batch.proteins.values().clone())).unwrap();
    Batch {
        counts: Csr::vstack(N_GENES, batches.iter().map(|batch| batch.counts.clone())).unwrap(),
        labels: batches.iter().flat_map(|batch| batch.labels.clone()).collect(),
        proteins: Features::new(protein_names(), proteins).unwrap(),
    }
}

/// A few epochs, in which the KL term weighs next to nothing and no weight decays.
fn spec(epochs: u32) -> TrainSpec {
    TrainSpec {
        epochs: Some(epochs),
        minibatch: Some(32),
        weight_decay: Some(0.0),
        kl_warmup: Some(Warmup::Epochs(400)),
        ..TrainSpec::default()
    }
}

/// Options small enough to train in a moment; an option that a model lacks is left out.
fn options(model: &dyn Model) -> Config {
    let small = [
        ("n_hidden", 8.into()),
        ("n_latent", 3.into()),
        ("n_layers", 2.into()),
        ("encode_covariates", true.into()),
        ("batch_norm_affine", "conditions".into()),
        ("hidden_layer_sizes", serde_json::json!([8, 6])),
        ("latent_dim", 3.into()),
        ("network_epochs", 2.into()),
        ("hdim", 8.into()),
        ("zdim", 3.into()),
        ("shared_hidden", serde_json::json!([8])),
        ("gene_hidden", serde_json::json!([8])),
        ("embedding_size", 8.into()),
    ];
    let known = model.configure(&Config::new()).unwrap().options();
    small
        .into_iter()
        .filter(|(name, _)| known.contains_key(*name))
        .map(|(n, v): (_, serde_json::Value)| (n.to_owned(), v))
        .collect()
}

fn train(
    model: &dyn Model,
    batches: &[(&str, &Batch)],
    spec: &TrainSpec,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    train_by(model, batches, spec, Device::Cpu.into(), checkpoints)
}

fn train_by(
    model: &dyn Model,
    batches: &[(&str, &Batch)],
    spec: &TrainSpec,
    compute: Compute,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    train_as(model, &options(model), batches, spec, compute, checkpoints)
}

fn train_as(
    model: &dyn Model,
    options: &Config,
    batches: &[(&str, &Batch)],
    spec: &TrainSpec,
    compute: Compute,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    let all = joined(&batches.iter().map(|(_, batch)| *batch).collect::<Vec<_>>());
    let names: Vec<&str> = batches.iter().flat_map(|(name, batch)| vec![*name; batch.labels.len()]).collect();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    let genes: Vec<String> = (0..N_GENES).map(|gene| format!("gene{gene}")).collect();
    let training = Training {
        model,
        options,
        genes: &genes,
        cells: &cells(&all),
        conditions: &conditions,
        batch_key: "batch",
        spec,
        further: &FurtherOptions::default(),
        compute,
    };
    train_reference(&training, &mut Silent, checkpoints)
}

fn reference(model: &dyn Model) -> Reference {
    let (a, b) = (batch(1, 60), batch(2, 60));
    train(model, &[("a", &a), ("b", &b)], &spec(3), &mut NoCheckpoints).unwrap().reference
}

fn map(base: &Base, name: &str, batch: &Batch, spec: &TrainSpec) -> Result<Surgery> {
    let query = Query { key: key(name), cells: cells(batch) };
    surgery(base, &query, spec, Device::Cpu, &mut Silent, &mut NoCheckpoints)
}

fn every_model(check: impl Fn(&dyn Model)) {
    assert!(!ZOO.is_empty());
    ZOO.iter().for_each(|model| check(*model));
}

/// Whether surgery trains something of new conditions: a model says on its card why, if not.
fn grows(model: &dyn Model) -> bool {
    let column = TensorSpec { dtype: DType::F32, shape: vec![1] };
    let of_tensors = Layout::plain(BTreeMap::from([("column".to_owned(), column)]));
    model.configure(&Config::new()).unwrap().layout(of_tensors).growth == Growth::Surgery
}

fn every_model_that_grows(check: impl Fn(&dyn Model)) {
    let growing: Vec<_> = ZOO.iter().filter(|model| grows(**model)).collect();
    assert!(growing.len() > 1);
    growing.into_iter().for_each(|model| check(*model));
}

#[test]
fn surgery_onto_what_does_not_grow_moves_nothing_and_is_refused_where_cells_contribute_nothing() {
    ZOO.iter().filter(|model| !grows(**model)).for_each(|model| {
        let reference = reference(*model);
        let mapped = map(&reference.base, "q", &batch(3, 40), &spec(1)).unwrap();
        assert!(mapped.history.is_empty() && mapped.columns.0.is_empty(), "{}", model.card().name);
        let parts: Vec<_> = mapped.contributions.iter().map(|contribution| &contribution.part).collect();
        assert_eq!(parts, reference.base.card.layout.parts.keys().collect::<Vec<_>>());
        let mut without_parts = reference.base;
        without_parts.card.layout.parts.clear();
        without_parts.card.layout.derived.clear();
        let refused = map(&without_parts, "q", &batch(3, 40), &spec(1)).unwrap_err();
        assert!(matches!(refused, Error::NoSurgery { reason } if reason.contains(model.card().title)));
    });
}

#[test]
fn names_are_unique_and_cards_are_filled() {
    let names: std::collections::BTreeSet<_> = ZOO.iter().map(|model| model.card().name).collect();
    assert_eq!(names.len(), ZOO.len());
    every_model(|model| assert!(!model.card().paper.is_empty() && !model.card().purpose.is_empty()));
}

#[test]
fn fields_are_named_once_and_the_first_is_the_expression_of_genes() {
    every_model(|model| {
        let fields = model.configure(&Config::new()).unwrap().fields();
        assert!(matches!(&fields[0], Field { kind: FieldKind::Matrix(_), need: Need::Required, .. }));
        assert_eq!(fields[0].name, RNA, "{}", model.card().name);
        let names: std::collections::BTreeSet<_> = fields.iter().map(|field| field.name.clone()).collect();
        assert_eq!(names.len(), fields.len(), "{}", model.card().name);
    });
}

#[test]
fn a_field_that_training_needs_is_refused_by_name_where_it_is_missing() {
    every_model(|model| {
        let (a, configured) = (batch(1, 40), model.configure(&Config::new()).unwrap());
        let needed = configured.fields().into_iter().filter(|field| field.need.is_to_train() && field.name != RNA);
        for field in needed {
            let lacking = cells(&a).without(&field.name);
            let refused = Registry::of(&configured.fields(), &lacking).unwrap_err();
            assert!(matches!(refused, Error::MissingField { name } if name == field.name));
        }
    });
}

#[test]
fn every_option_is_described() {
    every_model(|model| {
        let cards = model.options();
        let defaults: Config = cards.iter().map(|card| (card.name.to_owned(), card.default.clone())).collect();
        assert_eq!(model.configure(&Config::new()).unwrap().options(), defaults, "{}", model.card().name);
        assert_eq!(defaults.len(), cards.len(), "names are unique");
        assert!(cards.iter().all(|card| !card.help.is_empty()), "{}", model.card().name);
    });
}

#[test]
fn options_that_map_well_are_options() {
    every_model(|model| {
        let usual = model.options_for_surgery();
        let options = model.configure(&usual).unwrap().options();
        assert!(usual.iter().all(|(name, value)| options[name] == *value), "{}", model.card().name);
        assert_eq!(model.configure(&options).unwrap().options(), options, "what is written out is read again");
    });
}

#[test]
fn unknown_options_are_refused() {
    every_model(|model| {
        let options = BTreeMap::from([("n_hiden".to_owned(), 8.into())]);
        let error = model.configure(&options).unwrap_err().to_string();
        assert!(error.contains("n_hiden"), "{error}");
    });
}

#[test]
fn progress_counts_the_epochs_that_training_runs() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let query = batch(3, 40);
        let asked = TrainSpec { seed: 1, ..TrainSpec::default() };
        let mut told = None;
        let mut stop = |report: &EpochReport| {
            told = Some(report.n_epochs);
            Continue::No
        };
        let query = Query { key: key("q"), cells: cells(&query) };
        let stopped = surgery(&reference.base, &query, &asked, Device::Cpu, &mut stop, &mut NoCheckpoints);
        assert!(matches!(stopped, Err(Error::Cancelled { .. })));
        let plan = TrainPlan::new(model, Aim::ExactSurgery, &asked, 40).unwrap();
        assert_eq!(told, Some(plan.n_epochs), "{}", model.card().name);
    });
}

#[test]
fn training_lowers_the_loss_and_repeats_bit_for_bit() {
    every_model(|model| {
        let (a, b) = (batch(1, 60), batch(2, 60));
        // Fast enough for what eighty steps gain to be more than what cells drawn by chance differ.
        let spec = TrainSpec { learning_rate: Some(4e-3), ..spec(20) };
        let run = || train(model, &[("a", &a), ("b", &b)], &spec, &mut NoCheckpoints).unwrap();
        let (first, second) = (run(), run());
        assert_eq!(first.reference, second.reference);
        let Some((start, end)) = first.history.first().zip(first.history.last()) else {
            return assert!(learns_nothing(&first.reference), "{} ran no epoch", model.card().name);
        };
        assert!(end.loss < start.loss, "{}: {} after {}", model.card().name, end.loss, start.loss);
    });
}

#[test]
fn both_engines_train_alike() {
    every_model_that_grows(|model| {
        let (a, b, query) = (batch(1, 60), batch(2, 60), batch(3, 40));
        let spec = TrainSpec { train_size: Some(1.0), ..spec(6) };
        let of_reference = TrainSpec { weight_decay: Some(0.01), ..spec.clone() };
        let run = |engine: Engine| {
            let compute = Compute { device: Device::Cpu, engine };
            let batches = [("a", &a), ("b", &b)];
            let trained = train_by(model, &batches, &of_reference, compute, &mut NoCheckpoints).unwrap();
            let reference = &trained.reference;
            let query = Query { key: key("q"), cells: cells(&query) };
            let mapped = surgery(&reference.base, &query, &spec, compute, &mut Silent, &mut NoCheckpoints).unwrap();
            let conditions = CellConditions::single(key("a"), 60);
            let latent = reference.moments(&cells(&a), &conditions, Moments::MeanAndVariance, compute).unwrap();
            let mean = reference.latent(&cells(&a), &conditions, compute).unwrap();
            assert_eq!((&mean.mean, mean.var), (&latent.mean, None), "the mean does not depend on the variance");
            assert!(engine == Engine::Fast || (trained.engine, mapped.engine) == (engine, engine));
            let losses = trained.history.iter().chain(&mapped.history).map(|report| report.loss);
            let positions = latent.mean.iter().chain(latent.var.iter().flatten()).map(|&x| f64::from(x));
            losses.chain([mapped.fit.elbo(), mapped.fit.reconstruction()]).chain(positions).collect::<Vec<f64>>()
        };
        for (fast, autograd) in run(Engine::Fast).into_iter().zip(run(Engine::Autograd)) {
            assert!((fast - autograd).abs() <= 1e-4 * (1.0 + autograd.abs()), "{fast} is not {autograd}");
        }
    });
}

#[test]
fn models_as_they_are_made_for_surgery_go_through_the_kernels() {
    let options: Config = [("use_batch_norm", "none"), ("use_layer_norm", "both"), ("gene_likelihood", "zinb")]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
    // Those of scArches are made that way; batch norm of a minibatch is no obstacle but to labels.
    let models: [(&dyn Model, Config); 6] = [
        (&zoo::scvi::Scvi, options.clone()),
        (&zoo::scvi::Scvi, Config::new()),
        (&zoo::scanvi::Scanvi, options),
        (&zoo::trvae::Trvae, Config::new()),
        (&zoo::scpoli::Scpoli, Config::new()),
        (&zoo::expimap::Expimap, Config::from([("alpha".to_owned(), 0.7.into())])),
    ];
    for (model, options) in models {
        let (a, b, query) = (batch(1, 70), batch(2, 60), batch(3, 40));
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| {
                let options = options.clone().into_iter().chain(self::options(model)).collect();
                let (batches, spec) = ([("a", &a), ("b", &b)], spec(4));
                let of_reference = TrainSpec { weight_decay: Some(0.01), ..spec.clone() };
                let trained =
                    train_as(model, &options, &batches, &of_reference, Device::Cpu.into(), &mut NoCheckpoints);
                let trained = trained.unwrap();
                let mapped = map(&trained.reference.base, "q", &query, &spec).unwrap();
                assert_eq!((trained.engine, mapped.engine), (Engine::Fast, Engine::Fast), "{}", model.card().name);
                (trained.reference, mapped.columns, mapped.fit.elbo().to_bits())
            })
        };
        let alone = run(1);
        assert!(
            run(2) == alone && run(3) == alone,
            "the number of threads changes the result of {}",
            model.card().name
        );
    }
}

#[test]
fn a_base_and_its_columns_survive_the_way_through_bytes() {
    every_model(|model| {
        let reference = reference(model);
        let a = batch(1, 60);
        let conditions = CellConditions::single(key("a"), 60);
        let read = Reference {
            base: Base::from_bytes(&reference.base.to_bytes().unwrap()).unwrap(),
            columns: reference
                .columns
                .iter()
                .map(|(key, columns)| (key.clone(), Columns::from_bytes(&columns.to_bytes()).unwrap()))
                .collect(),
            parts: reference.parts.clone(),
            local: BTreeMap::new(),
        };
        assert_eq!(read, reference);
        let latent = |reference: &Reference| match reference.latent(&cells(&a), &conditions, Device::Cpu) {
            Err(Error::NotEmbedder { .. }) => None,
            latent => Some(latent.unwrap()),
        };
        assert_eq!(latent(&reference), latent(&read));
    });
}

/// Whether a reference is of a model without tensors, whose cells contribute to parts and do nothing else.
fn learns_nothing(reference: &Reference) -> bool {
    reference.base.tensors.is_empty() && !reference.parts.is_empty()
}

#[test]
fn surgery_trains_the_columns_of_the_task_and_nothing_else() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let query = batch(3, 50);
        let result = map(&reference.base, "q", &query, &spec(5)).unwrap();
        assert_eq!(result.frozen_before, result.frozen_after);
        assert_ne!(result.columns, result.initial);
        check::columns(&key("q"), &result.columns, &reference.base.card.layout, 1_000.0).unwrap();
    });
}

#[test]
fn columns_depend_on_their_own_condition_only_whatever_the_threads() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let batches = [batch(3, 40), batch(4, 50), batch(5, 30)];
        let queries: Vec<Query<'_>> =
            ["x", "y", "z"].iter().zip(&batches).map(|(name, b)| Query { key: key(name), cells: cells(b) }).collect();
        let alone = map(&reference.base, "y", &batches[1], &spec(4)).unwrap();
        for n_threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            let together = pool.install(|| {
                tch::set_num_threads(n_threads as i32);
                surgery_of_many(&reference.base, &queries, &spec(4), Device::Cpu, &|_, _| Continue::Yes).unwrap()
            });
            assert_eq!(together[1].columns, alone.columns, "{n_threads} threads");
            assert_eq!(together[1].fit.elbo().to_bits(), alone.fit.elbo().to_bits(), "{n_threads} threads");
        }
    });
}

#[test]
fn seed_and_key_change_the_columns() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let query = batch(3, 40);
        let start = |name: &str, seed| {
            let spec = TrainSpec { seed, init: ColumnInit::Random, ..spec(2) };
            map(&reference.base, name, &query, &spec).unwrap()
        };
        let first = start("q", 0);
        assert_eq!(first.columns, start("q", 0).columns);
        assert_ne!(first.initial, start("q", 1).initial);
        assert_ne!(first.initial, start("p", 0).initial);
    });
}

#[test]
fn earlier_embeddings_keep_every_bit_when_a_condition_is_merged() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let (a, query) = (batch(1, 60), batch(3, 40));
        let result = map(&reference.base, "q", &query, &spec(3)).unwrap();
        let grown = reference.with(key("q"), result.columns).unwrap();
        let conditions = CellConditions::single(key("a"), 60);
        let latent = |reference: &Reference| reference.latent(&cells(&a), &conditions, Device::Cpu).unwrap();
        assert_eq!(latent(&reference), latent(&grown));
        let unknown = CellConditions::single(key("nobody"), 60);
        let error = grown.latent(&cells(&a), &unknown, Device::Cpu).unwrap_err();
        assert!(matches!(error, Error::UnknownCondition { .. }));
        let twice = grown.with(key("q"), Columns::default()).unwrap_err();
        assert!(matches!(twice, Error::KnownCondition { .. }));
    });
}

#[test]
fn a_reference_of_one_batch_can_be_extended_too() {
    every_model_that_grows(|model| {
        let (a, query) = (batch(1, 60), batch(3, 40));
        let reference = train(model, &[("a", &a)], &spec(3), &mut NoCheckpoints).unwrap().reference;
        let result = map(&reference.base, "q", &query, &spec(3)).unwrap();
        assert_ne!(result.columns, result.initial);
        check::columns(&key("a"), &reference.columns[&key("a")], &reference.base.card.layout, 1_000.0).unwrap();
    });
}

#[test]
fn weight_decay_and_foreign_data_are_refused() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let query = batch(3, 40);
        let decaying = TrainSpec { weight_decay: Some(1e-6), ..spec(1) };
        assert!(matches!(map(&reference.base, "q", &query, &decaying), Err(Error::NotExact { .. })));
        let narrow = Batch::of(Csr::zeros(4, N_GENES - 1), vec!["type0".to_owned(); 4]);
        assert!(matches!(map(&reference.base, "q", &narrow, &spec(1)), Err(Error::Shape { .. })));
        let empty = Batch::of(Csr::zeros(0, N_GENES), vec![]);
        assert!(matches!(map(&reference.base, "q", &empty, &spec(1)), Err(Error::TooFewCells { .. })));
        let negative = Csr::from_dense(1, N_GENES, &[&[-1.0][..], &[0.0; N_GENES - 1]].concat()).unwrap();
        let negative = Batch::of(negative, vec!["type0".to_owned()]);
        assert!(matches!(map(&reference.base, "q", &negative, &spec(1)), Err(Error::Value { .. })));
    });
}

#[test]
fn cells_without_any_count_do_no_harm() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let full = batch(3, 30);
        let counts = Csr::vstack(N_GENES, [full.counts.clone(), Csr::zeros(2, N_GENES)]).unwrap();
        let labels = [full.labels.clone(), vec!["type0".to_owned(); 2]].concat();
        let result = map(&reference.base, "q", &Batch::of(counts, labels), &spec(2)).unwrap();
        assert!(result.fit.elbo().is_finite());
        let values = result.columns.0.iter().flat_map(|(name, tensor)| tensor.to_f32(name).unwrap());
        assert!(values.into_iter().all(f32::is_finite));
    });
}

/// Keeps all checkpoints in memory, one per epoch.
#[derive(Default)]
struct InMemory(Vec<Vec<u8>>);

impl CheckpointStore for InMemory {
    fn load(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.last().cloned())
    }

    fn save(&mut self, checkpoint: &[u8]) -> Result<()> {
        self.0.push(checkpoint.to_vec());
        Ok(())
    }

    fn every(&self) -> u32 {
        1
    }
}

#[test]
fn a_run_that_was_stopped_ends_where_an_undisturbed_one_ends() {
    every_model_that_grows(|model| {
        let reference = reference(model);
        let query = batch(3, 40);
        let undisturbed = map(&reference.base, "q", &query, &spec(6)).unwrap();
        let query = Query { key: key("q"), cells: cells(&query) };
        let mut store = InMemory::default();
        let mut stop_after_two = |report: &EpochReport| if report.epoch == 2 { Continue::No } else { Continue::Yes };
        let stopped = surgery(&reference.base, &query, &spec(6), Device::Cpu, &mut stop_after_two, &mut store);
        assert!(matches!(stopped, Err(Error::Cancelled { last }) if last.epoch == 2));
        let mut other = InMemory(store.0.clone());
        let resumed = surgery(&reference.base, &query, &spec(6), Device::Cpu, &mut Silent, &mut store).unwrap();
        assert_eq!(resumed.columns, undisturbed.columns);
        assert_eq!(resumed.history.len(), 6);
        let refused = surgery(&reference.base, &query, &spec(7), Device::Cpu, &mut Silent, &mut other);
        assert!(matches!(refused, Err(Error::Checkpoint { .. })));
        let counts = Csr::from_dense(40, N_GENES, &[3.0; 40 * N_GENES]).unwrap();
        let changed = Query { cells: query.cells.with_counts(&counts), ..query.clone() };
        let refused = surgery(&reference.base, &changed, &spec(6), Device::Cpu, &mut Silent, &mut other);
        assert!(matches!(refused, Err(Error::Checkpoint { .. })), "a checkpoint of other cells");
        other.0.last_mut().unwrap().truncate(100);
        let refused = surgery(&reference.base, &query, &spec(6), Device::Cpu, &mut Silent, &mut other);
        assert!(matches!(refused, Err(Error::Checkpoint { .. })));
    });
}

#[test]
fn training_of_a_reference_resumes_too() {
    every_model(|model| {
        let (a, b) = (batch(1, 60), batch(2, 60));
        let batches = [("a", &a), ("b", &b)];
        let whole = train(model, &batches, &spec(4), &mut NoCheckpoints).unwrap();
        let mut store = InMemory::default();
        train(model, &batches, &spec(4), &mut store).unwrap();
        if learns_nothing(&whole.reference) {
            return assert!(store.0.is_empty());
        }
        assert_eq!(store.0.len(), 4);
        store.0.truncate(2);
        let resumed = train(model, &batches, &spec(4), &mut store).unwrap();
        assert_eq!(store.0.len(), 4);
        assert_eq!(resumed.reference.base.tensors, whole.reference.base.tensors);
    });
}

const N_GENES: usize = 24;
const N_PROTEINS: usize = 6;

//! What only scPoli does: prototypes of cell types, embeddings of conditions.

use archipelago_anndata::Csr;
use archipelago_common::{
    ConditionKey, Name, Section, StateDict, Tensor,
    pool::Pool,
    progress::Silent,
    task::{ColumnInit, TrainSpec},
};
use archipelago_models::{
    Blueprint, Categorical, CellConditions, Cells, Compute, Device, Engine, Error, Extension, NoCheckpoints,
    PredictFrom, Query, Reference, Surgery, Trained,
    data::LABELS,
    results::{Answer, Asked, Column, Frame, Given, Value},
    surgery,
    surgery::{Placement, UpstreamSurgery, likeness, upstream::Flags, upstream_surgery},
    train::{FurtherOptions, Sampling},
    zoo,
};

use crate::{Batch, batch, cells, joined, key, spec};

fn train(batches: &[(&str, &Batch)], options: &[(&str, serde_json::Value)], spec: &TrainSpec) -> Trained {
    let model = zoo::model("scpoli").unwrap();
    let mut all = crate::options(model);
    all.extend(options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    crate::train_as(model, &all, batches, spec, Device::Cpu.into(), &mut NoCheckpoints).unwrap()
}

/// A reference that has seen enough of its cells to tell their types.
fn reference() -> Reference {
    let (a, b) = (batch(1, 90), batch(2, 90));
    let fast = TrainSpec { learning_rate: Some(5e-3), ..spec(40) };
    let options = [("pretraining_epochs", 20.into()), ("eta", 5.0.into())];
    train(&[("a", &a), ("b", &b)], &options, &fast).reference
}

fn map_as(reference: &Reference, name: &str, cells: Cells<'_>) -> Surgery {
    let query = Query { key: key(name), cells };
    let spec = TrainSpec { init: ColumnInit::Mean, ..spec(4) };
    surgery(&reference.base, &query, &spec, Device::Cpu, &mut Silent, &mut NoCheckpoints).unwrap()
}

fn part() -> Name {
    "prototypes".parse().unwrap()
}

fn sums(surgery: &Surgery) -> &Pool {
    surgery.contributions[0].value.as_sums().unwrap()
}

/// The reference with a mapped condition and what its cells contribute.
fn grown(reference: &Reference, name: &str, surgery: &Surgery) -> Reference {
    let mut grown = reference.with(key(name), surgery.columns.clone()).unwrap();
    for contribution in &surgery.contributions {
        let key = key(name).in_section(Section::Part(contribution.part.clone()));
        grown.parts.insert(key, contribution.value.clone());
    }
    grown
}

fn frame(asked: &Asked<'_>, question: &str, given: &[(&'static str, Value)]) -> Frame {
    match answer(asked, question, given).unwrap() {
        Answer::Frame(frame) => frame,
        other => panic!("{question}: {other:?}"),
    }
}

fn answer(asked: &Asked<'_>, question: &str, given: &[(&'static str, Value)]) -> archipelago_models::Result<Answer> {
    let card = zoo::model("scpoli").unwrap().questions().iter().find(|card| card.name == question).unwrap();
    let given = given.iter().fold(Given::defaults(card.arguments), |all, (name, value)| all.with(name, value.clone()));
    asked.answer(question, &given)
}

fn names<'a>(frame: &'a Frame, column: &str) -> &'a [String] {
    match &frame.columns.iter().find(|(name, _)| name == column).unwrap().1 {
        Column::Names(names) => names,
        Column::Numbers(_) => panic!("{column} is of numbers"),
    }
}

fn numbers<'a>(frame: &'a Frame, column: &str) -> &'a [f32] {
    match &frame.columns.iter().find(|(name, _)| name == column).unwrap().1 {
        Column::Numbers(numbers) => numbers,
        Column::Names(_) => panic!("{column} is of names"),
    }
}

fn share_of_equal(found: &[String], truth: &[String]) -> f64 {
    found.iter().zip(truth).filter(|(found, truth)| found == truth).count() as f64 / truth.len() as f64
}

#[test]
fn types_of_new_cells_are_told_and_doubtful_ones_are_of_none() {
    let (reference, query) = (reference(), batch(3, 60));
    let mapped = map_as(&reference, "q", Cells::new(&query.counts));
    let reference = grown(&reference, "q", &mapped);
    let conditions = CellConditions::single(key("q"), 60);
    let asked = Asked::new(&reference, &Cells::new(&query.counts), &conditions, 0, Device::Cpu).unwrap();
    let found = frame(&asked, "classify", &[("distances", Value::Flag(true))]);
    assert!(share_of_equal(names(&found, "labels_pred"), &query.labels) > 0.8);
    let predicted =
        reference.predict_labels(&Cells::new(&query.counts), &conditions, PredictFrom::Mean, 0, Device::Cpu);
    assert_eq!(predicted.unwrap().most_probable(), names(&found, "labels_pred"), "`predict` says the same");
    let uncertainty = numbers(&found, "labels_uncertainty");
    let nearest =
        |cell: usize| (0..3).map(|k| numbers(&found, &format!("labels_type{k}"))[cell]).fold(f32::MAX, f32::min);
    assert!((0..60).all(|cell| uncertainty[cell] == nearest(cell)));
    let mut sorted = uncertainty.to_vec();
    sorted.sort_by(f32::total_cmp);
    let given = [("threshold", Value::Number(f64::from(sorted[29]))), ("unknown", Value::Names(vec!["?".to_owned()]))];
    let doubtful = frame(&asked, "classify", &given);
    assert_eq!(names(&doubtful, "labels_pred").iter().filter(|name| *name == "?").count(), 30);
    let sure = frame(&asked, "classify", &[("probability", Value::Flag(true))]);
    assert!(numbers(&sure, "labels_probability").iter().all(|p| (1.0 / 3.0..=1.0).contains(p)));
    assert!(matches!(answer(&asked, "classify", &[("p", Value::Number(0.5))]), Err(Error::Argument { name: "p", .. })));
}

#[test]
fn prototypes_pooled_from_two_sites_are_those_of_all_cells() {
    let (reference, x, y) = (reference(), batch(3, 60), batch(4, 45));
    // One type is new, and both sites have it.
    let label = |batch: &Batch| -> Vec<String> { batch.labels.iter().map(|l| l.replace("type2", "novel")).collect() };
    let labelled = |batch: &Batch, labels: &[String]| {
        map_as(&reference, "q", Cells::new(&batch.counts).with(LABELS, Categorical::from_values(labels)))
    };
    let (of_x, of_y) = (labelled(&x, &label(&x)), labelled(&y, &label(&y)));
    assert_eq!(sums(&of_x).entries().collect::<Vec<_>>(), ["novel", "type0", "type1"]);
    let behind = &of_x.contributions[0].cells["novel"];
    assert_eq!(*behind, (0..60).filter(|cell| cell % 3 == 2).collect::<Vec<_>>());
    // In one place: the cells of both, each with its own site's columns.
    let one = grown(&grown(&reference, "x", &of_x), "y", &of_y);
    let mut direct = Pool::new(sums(&of_x).specs().clone());
    let all = joined(&[&x, &y]);
    let cells = Cells::new(&all.counts).with(LABELS, Categorical::from_values(&label(&all)));
    let keys: Vec<ConditionKey> = (0..105).map(|cell| key(if cell < 60 { "x" } else { "y" })).collect();
    let conditions = CellConditions::from_keys(&keys);
    let module = one.module(conditions.keys(), Device::Cpu).unwrap();
    let dataset = one.encode(&cells, &conditions).unwrap();
    for cells in [(60..105).collect::<Vec<_>>(), (0..60).collect()] {
        let contributed = module.contributions(&dataset, &cells).unwrap();
        direct.absorb(contributed[0].value.as_sums().unwrap()).unwrap();
    }
    let mut sites = one.clone();
    sites.parts.retain(|part, _| part.batch() == "x" || part.batch() == "y");
    assert_eq!(sites.pooled(&part()).unwrap().unwrap(), direct, "to the last bit");
    // The new type is one that cells are told to be of.
    let conditions = CellConditions::single(key("x"), 60);
    let asked = Asked::new(&one, &Cells::new(&x.counts), &conditions, 0, Device::Cpu).unwrap();
    let found = frame(&asked, "classify", &[]);
    assert!(names(&found, "labels_pred").contains(&"novel".to_owned()));
    let table = frame(&asked, "prototypes", &[("what", Value::Choice("pooled".to_owned()))]);
    let at = names(&table, "cell_type").iter().position(|name| name == "novel").unwrap();
    assert_eq!(numbers(&table, "n_cells")[at], 35.0);
}

#[test]
fn types_change_what_is_contributed_and_nothing_that_surgery_trains() {
    let (reference, query) = (reference(), batch(3, 40));
    let (with, without) = (map_as(&reference, "q", cells(&query)), map_as(&reference, "q", Cells::new(&query.counts)));
    assert_eq!((&with.columns, with.frozen_after), (&without.columns, without.frozen_after));
    assert!(with.contributions.len() == 1 && without.contributions.is_empty());
}

#[test]
fn the_reference_prototypes_stay_under_upstreams_rules_and_new_types_get_theirs() {
    let (reference, query) = (reference(), batch(3, 60));
    let labels: Vec<String> = query.labels.iter().map(|label| label.replace("type2", "novel")).collect();
    let cells = Cells::new(&query.counts).with(LABELS, Categorical::from_values(&labels));
    for placement in [Placement::OwnBlock, Placement::End] {
        let mapped = by_upstreams_rules(&reference, &cells, 22, placement, &Extension::default()).unwrap();
        assert_eq!(mapped.base.card.labels, ["type0", "type1", "type2", "novel"]);
        let means = |of: &Reference| of.base.tensors.get("prototypes.labeled.mean").unwrap().to_f32("means").unwrap();
        let (before, after) = (means(&reference), means(&mapped));
        assert_eq!(after[..before.len()], before[..]);
        assert!(after.len() == before.len() / 3 * 4 && after[before.len()..].iter().any(|value| *value != 0.0));
        assert_eq!(
            mapped.columns[&key("a")].0.get("embeddings.0.weight.row"),
            reference.columns[&key("a")].0.get("embeddings.0.weight.row")
        );
        assert_eq!(mapped.base.card.training["surgery"], "approximate: upstream's rules");
    }
}

#[test]
fn labels_unknown_to_the_prototypes_are_refused_where_they_would_be_lost() {
    let (reference, query) = (reference(), batch(3, 60));
    let labels: Vec<String> = query.labels.iter().map(|label| label.replace("type2", "novel")).collect();
    let novel = Cells::new(&query.counts).with(LABELS, Categorical::from_values(&labels));
    let options = |name: &str, value: serde_json::Value| Extension {
        options: [(name.to_owned(), value)].into(),
        ..Extension::default()
    };
    let map = |cells: &Cells<'_>, n_epochs: u32, extension: &Extension| {
        by_upstreams_rules(&reference, cells, n_epochs, Placement::OwnBlock, extension)
    };
    let untrained = options("prototype_training", false.into());
    for (n_epochs, extension, why) in [
        (4, &untrained, "`prototype_training` is false"),
        (20, &Extension::default(), "`pretraining_epochs` leaves none of 20 epochs"),
    ] {
        let refused = map(&novel, n_epochs, extension).unwrap_err().to_string();
        assert!(refused.contains("cells are of `novel`, which the reference has no prototype of"), "{refused}");
        assert!(refused.contains(why), "{refused}");
    }
    map(&cells(&query), 4, &untrained).unwrap();
    // By exact surgery nothing is lost: the cells are contributed.
    let contributed = map_as(&reference, "q", novel);
    assert!(sums(&contributed).entries().any(|name| name == "novel"));
}

/// The new reference that upstream's surgery of condition `q` gives.
fn by_upstreams_rules(
    reference: &Reference,
    cells: &Cells<'_>,
    n_epochs: u32,
    placement: Placement,
    extension: &Extension,
) -> archipelago_models::Result<Reference> {
    let (conditions, spec, flags) = (CellConditions::single(key("q"), 60), spec(n_epochs), Flags::default());
    let (conditions, spec, device) = (&conditions, &spec, Device::Cpu);
    let ask = UpstreamSurgery { cells, conditions, spec, flags, placement, device, extension };
    Ok(upstream_surgery(reference, &ask, &mut Silent, &mut NoCheckpoints)?.reference)
}

#[test]
fn how_prototypes_draw_a_labelled_query_is_said_for_upstreams_surgery_and_refused_for_exact() {
    let (reference, query) = (reference(), batch(3, 60));
    let extension = |name: &str, value: serde_json::Value| {
        let options = [("pretraining_epochs".to_owned(), 1.into()), (name.to_owned(), value)].into();
        Extension { options, ..Extension::default() }
    };
    let by = |eta: f64| {
        let extension = extension("eta", eta.into());
        by_upstreams_rules(&reference, &cells(&query), 4, Placement::End, &extension).unwrap()
    };
    let (not_drawn, drawn) = (by(0.0), by(50.0));
    assert_eq!(drawn.base.card.config["eta"], 50.0);
    let row = |of: &Reference| of.columns[&key("q")].0.get("embeddings.0.weight.row").cloned().unwrap();
    assert_eq!(row(&drawn).shape(), row(&not_drawn).shape());
    assert_ne!(row(&drawn), row(&not_drawn), "labelled cells are drawn as strongly as was asked for");
    let of_reference = extension("latent_dim", 3.into());
    let refused = by_upstreams_rules(&reference, &cells(&query), 4, Placement::End, &of_reference).unwrap_err();
    assert!(refused.to_string().contains("`latent_dim` is the reference's"), "{refused}");
    let refused = Blueprint::extended(&reference.base.card, &extension("eta", 2.0.into())).unwrap_err();
    assert!(refused.to_string().contains("upstream's surgery alone"), "{refused}");
}

#[test]
fn a_new_type_of_clusters_is_a_file_for_this_reference_only() {
    let (reference, query) = (reference(), batch(3, 90));
    let reference = grown(&reference, "q", &map_as(&reference, "q", Cells::new(&query.counts)));
    let conditions = CellConditions::single(key("q"), 90);
    let asked =
        |reference: &Reference| Asked::new(reference, &Cells::new(&query.counts), &conditions, 0, Device::Cpu).unwrap();
    let own = asked(&reference);
    let clusters = frame(&own, "clusters", &[]);
    assert!(names(&clusters, "cluster").contains(&"0".to_owned()));
    let name = |name: &str| ("name", Value::Names(vec![name.to_owned()]));
    let which = |cluster: &str| ("clusters", Value::Names(vec![cluster.to_owned()]));
    let Answer::File(bytes) = answer(&own, "add-cell-type", &[name("novel"), which("0")]).unwrap() else {
        panic!("a file")
    };
    let file = |bytes: &[u8]| ("prototypes", Value::File(Some(bytes.to_vec())));
    let found = frame(&own, "classify", &[file(&bytes)]);
    let before = frame(&own, "classify", &[]);
    let uncertain = |found: &Frame| numbers(found, "labels_uncertainty").to_vec();
    let novel: Vec<bool> = names(&found, "labels_pred").iter().map(|name| name == "novel").collect();
    assert!(novel.contains(&true) && novel.contains(&false), "{novel:?}");
    for (cell, (now, then)) in uncertain(&found).into_iter().zip(uncertain(&before)).enumerate() {
        assert_eq!(now < then, novel[cell], "{cell}: {now} and {then}");
    }

    let refused =
        |given: &[(&'static str, Value)], question: &str| answer(&own, question, given).unwrap_err().to_string();
    assert!(refused(&[name("type0"), which("0")], "add-cell-type").contains("type0"));
    assert!(refused(&[name("novel"), which("99")], "add-cell-type").contains("`99`"));
    assert!(refused(&[which("0")], "add-cell-type").contains("--name"));
    assert!(refused(&[("resolution", Value::Number(0.0))], "clusters").contains("--resolution"));
    assert!(refused(&[file(b"nonsense")], "classify").contains("the prototypes do not fit"));
    let (tensors, told) = StateDict::from_safetensors("prototypes", &bytes).unwrap();
    for (name, numbers) in [("0.mean", 3), ("0.cov", 9)] {
        let mut damaged = tensors.clone();
        let shape = tensors.get(name).unwrap().shape().to_vec();
        damaged.insert(name, Tensor::from_f32(&shape, &[&[f32::NAN][..], &vec![0.5; numbers - 1]].concat()));
        let said = refused(&[file(&damaged.to_safetensors(told.as_deref()))], "classify");
        assert!(said.contains(&format!("`{name}` holds what is not a number")), "{said}");
    }
    let (a, b) = (batch(1, 60), batch(2, 60));
    let other = train(&[("a", &a), ("b", &b)], &[], &spec(2)).reference;
    let mapped = map_as(&other, "q", Cells::new(&query.counts));
    let other = grown(&other, "q", &mapped);
    let error = answer(&asked(&other), "classify", &[file(&bytes)]).unwrap_err().to_string();
    assert!(error.contains("latent space of another reference"), "{error}");
}

#[test]
fn samples_have_places_and_say_what_is_known_of_them() {
    let reference = reference();
    let (x, y) = (batch(3, 40), batch(4, 40));
    let reference = grown(&reference, "x", &map_as(&reference, "x", Cells::new(&x.counts)));
    let reference = grown(&reference, "y", &map_as(&reference, "y", Cells::new(&y.counts)));
    let both = joined(&[&x, &y]);
    let keys: Vec<ConditionKey> = (0..80).map(|cell| key(if cell < 40 { "x" } else { "y" })).collect();
    let asked =
        Asked::new(&reference, &Cells::new(&both.counts), &CellConditions::from_keys(&keys), 0, Device::Cpu).unwrap();
    let disease: Vec<String> = (0..80).map(|cell| if cell < 40 { "sick" } else { "well" }.to_owned()).collect();
    let found =
        frame(&asked, "sample-embeddings", &[("covariates", Value::Columns(vec![("disease".to_owned(), disease)]))]);
    assert_eq!(names(&found, "batch"), ["x", "y", "a", "b"]);
    assert_eq!(names(&found, "disease"), ["sick", "well", "", ""]);
    let (columns, values) = found.values.as_ref().unwrap();
    assert_eq!((columns.len(), values.dim()), (10, (4, 10)));
    let row = reference.columns[&key("x")].0.get("embeddings.0.weight.row").unwrap().to_f32("row").unwrap();
    assert_eq!(values.row(0).to_vec(), row);
    assert!(values.rows().into_iter().all(|row| row.dot(&row).sqrt() <= 1.0 + 1e-5));
    assert_eq!(found.places[0].1.dim(), (4, 2));
}

#[test]
fn cells_of_a_condition_are_most_like_it() {
    let reference = reference();
    let again = batch(1, 90);
    let found = likeness(&reference, &Cells::new(&again.counts), 0, Device::Cpu).unwrap();
    assert_eq!(found.nearest, key("a"), "{found:?}");
}

#[test]
fn cells_without_a_type_get_clusters_and_a_type_of_one_cell_no_nan() {
    let (a, b) = (batch(1, 60), batch(2, 60));
    let mut labels = joined(&[&a, &b]).labels;
    (0..labels.len()).filter(|cell| cell % 2 == 0).for_each(|cell| "Unknown".clone_into(&mut labels[cell]));
    "alone".clone_into(&mut labels[1]);
    let hidden = |batch: &Batch, labels: &[String]| Batch {
        counts: batch.counts.clone(),
        labels: labels.to_vec(),
        proteins: batch.proteins.clone(),
    };
    let (a, b) = (hidden(&a, &labels[..60]), hidden(&b, &labels[60..]));
    let weight = ("unlabeled_weight", 0.5.into());
    let spec = TrainSpec { train_size: Some(1.0), ..spec(4) };
    for clustering in [vec![], vec![("clustering", "kmeans".into()), ("n_clusters", 4.into())]] {
        let options: Vec<_> = [weight.clone()].into_iter().chain(clustering).collect();
        let trained = train(&[("a", &a), ("b", &b)], &options, &spec);
        let base = &trained.reference.base.tensors;
        let clusters = base.get("prototypes.unlabeled.mean").unwrap();
        assert!(clusters.shape()[0] > 1 && clusters.to_f32("m").unwrap().iter().all(|value| value.is_finite()));
        let at = trained.reference.base.card.labels.iter().position(|label| label == "alone").unwrap();
        let n = base.get("prototypes.labeled.n").unwrap().to_f32("n").unwrap();
        let cov = base.get("prototypes.labeled.cov").unwrap().to_f32("cov").unwrap();
        assert_eq!(n[at], 1.0);
        assert!(cov[at * 9..(at + 1) * 9].iter().all(|value| *value == 0.0), "{cov:?}");
        let last = trained.history.last().unwrap();
        assert!(last.figures.contains_key("labeled_loss") && last.figures.contains_key("unlabeled_loss"));
        assert!(!trained.history[0].figures.contains_key("prototype_loss"));
    }
}

/// A reference of one batch whose cells have no types.
fn train_without_types(a: &Batch, further: &FurtherOptions) -> Reference {
    let model = zoo::model("scpoli").unwrap();
    let genes: Vec<String> = (0..crate::N_GENES).map(|gene| format!("gene{gene}")).collect();
    let training = archipelago_models::Training {
        model,
        options: &crate::options(model),
        genes: &genes,
        cells: &Cells::new(&a.counts),
        conditions: &CellConditions::single(key("a"), a.labels.len()),
        batch_key: "batch",
        spec: &spec(2),
        further,
        compute: Device::Cpu.into(),
    };
    archipelago_models::train_reference(&training, &mut Silent, &mut NoCheckpoints).unwrap().reference
}

#[test]
fn every_cell_is_taken_once_unless_conditions_are_to_be_balanced() {
    let a = batch(1, 60);
    let by = |balances| {
        let sampling = Sampling { balances, n_draws: None };
        train_without_types(&a, &FurtherOptions { sampling, ..FurtherOptions::default() }).base.tensors
    };
    assert_eq!(by(None), by(Some(false)));
    assert_ne!(by(None), by(Some(true)));
}

#[test]
fn without_types_nothing_is_predicted_and_all_the_same_cells_are_embedded() {
    let (a, n_genes) = (batch(1, 60), crate::N_GENES);
    let reference = train_without_types(&a, &FurtherOptions::default());
    let conditions = CellConditions::single(key("a"), 60);
    let cells = Cells::new(&a.counts);
    let refused = reference.predict_labels(&cells, &conditions, PredictFrom::Mean, 0, Device::Cpu).unwrap_err();
    assert!(matches!(refused, Error::NotLabelModel { .. }));
    let latent = |engine| reference.latent(&cells, &conditions, Compute { device: Device::Cpu, engine }).unwrap();
    let (fast, autograd) = (latent(Engine::Fast), latent(Engine::Autograd));
    assert_eq!((fast.engine, autograd.engine), (Engine::Fast, Engine::Autograd), "embeddings go through the kernels");
    assert!((&fast.mean - &autograd.mean).iter().all(|difference| difference.abs() < 1e-4));
    let asked = Asked::new(&reference, &cells, &conditions, 0, Device::Cpu).unwrap();
    assert!(answer(&asked, "classify", &[]).is_err());
    let nothing = Csr::zeros(0, n_genes);
    let asked = Asked::without_cells(&reference, &nothing, 0, Device::Cpu).unwrap();
    assert_eq!(frame(&asked, "prototypes", &[]).rows.unwrap().1.len(), 0);
    assert!(reference.parts.is_empty());
}

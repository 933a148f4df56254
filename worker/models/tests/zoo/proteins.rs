//! Models of RNA and proteins: panels that differ, proteins that are missing, and what is told about both.

use archipelago_common::progress::Silent;
use archipelago_models::{
    Categorical, CellConditions, Cells, Device, Error, Extension, NoCheckpoints, Query, Reference, Surgery,
    data::Features,
    model::Model,
    results::{
        Answer, CorrelationAsk, CountResults, ExpressionAsk, Given, GroupAsk, LibraryAsk, Value,
        differential_expression::{Change, Decision},
    },
    surgery,
    surgery::{Placement, UpstreamSurgery, upstream::Flags, upstream_surgery},
    zoo::{self, totalvi::PROTEINS},
};
use ndarray::Array2;

use crate::{Batch, N_GENES, N_PROTEINS, batch, cells, joined, key, protein_names, spec, train};

fn totalvi() -> &'static dyn Model {
    zoo::model("totalvi").unwrap()
}

/// A reference of two batches, stained for all proteins.
fn reference(epochs: u32) -> Reference {
    train(totalvi(), &[("a", &batch(1, 60)), ("b", &batch(3, 60))], &spec(epochs), &mut NoCheckpoints)
        .unwrap()
        .reference
}

fn map(reference: &Reference, cells: Cells<'_>) -> Result<Surgery, Error> {
    let query = Query { key: key("q"), cells };
    surgery(&reference.base, &query, &spec(3), Device::Cpu, &mut Silent, &mut NoCheckpoints)
}

/// Which proteins the mapped condition was stained for.
fn measured(surgery: &Surgery) -> Vec<f32> {
    surgery.columns.0.get("protein_measured.condition").unwrap().to_f32("measured").unwrap()
}

#[test]
fn panels_are_aligned_by_name_and_what_is_not_there_is_missing() {
    let reference = reference(3);
    let query = batch(5, 40);
    let whole = map(&reference, cells(&query)).unwrap();
    assert_eq!(measured(&whole), [1.0; N_PROTEINS]);

    // The same proteins in another order, one of them replaced by another that the reference does not know.
    let mut names = protein_names();
    names.reverse();
    names[0] = "stranger".to_owned();
    let mut values = query.proteins.to_dense();
    values.invert_axis(ndarray::Axis(1));
    let other = Features::dense(names, &values).unwrap();
    let alignment = other.alignment(&protein_names());
    assert_eq!((alignment.missing, alignment.unknown), (vec!["protein5".to_owned()], vec!["stranger".to_owned()]));
    let reordered = map(&reference, cells(&query).with(PROTEINS, other)).unwrap();
    assert_eq!(measured(&reordered), [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    let lacking = map(&reference, cells(&batch(5, 40).without_protein(N_PROTEINS - 1))).unwrap();
    assert_eq!(reordered.columns, lacking.columns);

    let none = map(&reference, cells(&query).without(PROTEINS)).unwrap();
    assert_eq!(measured(&none), [0.0; N_PROTEINS]);
    assert!(none.fit.elbo().is_finite());
}

#[test]
fn proteins_that_cannot_be_used_are_refused_by_name() {
    let reference = reference(1);
    let query = batch(5, 20);
    let foreign = Features::dense(vec!["x".to_owned()], &Array2::ones((20, 1))).unwrap();
    let refused = map(&reference, cells(&query).with(PROTEINS, foreign)).unwrap_err();
    assert!(matches!(&refused, Error::NoCommonFeatures { found, .. } if found == "x"), "{refused}");
    let short = batch(5, 10).proteins;
    let refused = map(&reference, cells(&query).with(PROTEINS, short)).unwrap_err().to_string();
    assert_eq!(refused, "`proteins` has 10 cells, expected 20");
    let negative = Features::dense(protein_names(), &Array2::from_elem((20, N_PROTEINS), -1.0)).unwrap();
    let negative = map(&reference, cells(&query).with(PROTEINS, negative)).unwrap_err().to_string();
    assert!(negative.contains("`protein0` of cell 0 in proteins") && negative.contains("-1"), "{negative}");

    let scvi = zoo::model("scvi").unwrap();
    let a = batch(1, 40);
    let plain = train(scvi, &[("a", &a)], &spec(1), &mut NoCheckpoints).unwrap().reference;
    assert!(plain.base.card.config["registry"].get("proteins").is_none(), "scVI does not look at proteins");
    let conditions = CellConditions::single(key("a"), 40);
    let results = CountResults::new(&plain, &cells(&a), &conditions, 0, Device::Cpu).unwrap();
    assert_eq!((results.blocks().len(), scvi.questions().len()), (1, 0), "it has nothing to say of them");
}

#[test]
fn a_reference_without_proteins_is_refused() {
    let a = batch(1, 40);
    let genes: Vec<String> = (0..N_GENES).map(|gene| format!("gene{gene}")).collect();
    let training = archipelago_models::Training {
        model: totalvi(),
        options: &crate::options(totalvi()),
        genes: &genes,
        cells: &cells(&a).without(PROTEINS),
        conditions: &CellConditions::single(key("a"), 40),
        batch_key: "batch",
        spec: &spec(1),
        further: &archipelago_models::train::FurtherOptions::default(),
        compute: Device::Cpu.into(),
    };
    let refused = archipelago_models::train_reference(&training, &mut Silent, &mut NoCheckpoints).unwrap_err();
    assert_eq!(refused.to_string(), "the model takes `proteins`, which the data lack");
}

/// Results for a query that was mapped without proteins.
fn check(check: impl Fn(&CountResults<'_>, &Batch)) {
    let reference = reference(60);
    let query = batch(5, 40);
    let without = cells(&query).without(PROTEINS);
    let mapped = map(&reference, without.clone()).unwrap();
    let grown = reference.with(key("q"), mapped.columns).unwrap();
    let conditions = CellConditions::single(key("q"), 40);
    check(&CountResults::new(&grown, &without, &conditions, 0, Device::Cpu).unwrap(), &query);
}

/// The proteins that totalVI's own question gives, with these things told beside the defaults.
fn ask(results: &CountResults<'_>, told: &[(&'static str, Value)]) -> Array2<f32> {
    let question = &totalvi().questions()[0];
    let mut given = Given::defaults(question.arguments);
    for (name, value) in told {
        given = given.with(name, value.clone());
    }
    match results.asked().answer(question.name, &given).unwrap() {
        Answer::Cells { columns, values } => {
            assert_eq!(columns.len(), values.ncols());
            values
        }
        other => panic!("expected a row for each cell, found {other:?}"),
    }
}

fn what(word: &str) -> (&'static str, Value) {
    ("what", Value::Choice(word.to_owned()))
}

#[test]
fn proteins_of_cells_without_any_are_imputed_from_stained_conditions() {
    check(|results, query| {
        let stained = vec![results.asked().code(&key("a")).unwrap(), results.asked().code(&key("b")).unwrap()];
        let impute = [("impute", Value::Flag(true)), ("n_samples", Value::Count(5))];
        let with = |more: (&'static str, Value)| ask(results, &[&impute[..], &[more]].concat());
        let imputed = ask(results, &impute);
        assert_eq!(imputed.dim(), (40, N_PROTEINS));
        assert_eq!(imputed, ask(results, &impute), "one seed, one result");
        let named = [("transform_batch", Value::Conditions(stained)), ("n_samples", Value::Count(5))];
        assert_eq!(imputed, ask(results, &named), "both batches of the reference are stained for all");
        let (mut marker, mut other) = (0.0, 0.0);
        for ((cell, protein), value) in imputed.indexed_iter() {
            let is_marker = query.labels[cell].ends_with(&(protein % 3).to_string());
            *(if is_marker { &mut marker } else { &mut other }) += f64::from(*value);
        }
        assert!(marker / 80.0 > 1.5 * other / 160.0, "markers {} against {}", marker / 80.0, other / 160.0);

        let background = with(("include_protein_background", Value::Flag(true)));
        assert!(background.iter().zip(&imputed).all(|(with, without)| with >= without));
        let shares = with(("scale_protein", Value::Flag(true)));
        assert!(shares.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-4));
        assert_ne!(with(("sample_protein_mixing", Value::Flag(true))), imputed);
        assert!(with(what("foreground")).iter().all(|p| (0.0..=1.0).contains(p)));
        assert!(with(what("background")).iter().all(|&mean| mean > 0.0));
        let some = with(("proteins", Value::Names(vec!["protein3".to_owned()])));
        assert_eq!(some.column(0), imputed.column(3));
    });
}

#[test]
fn genes_and_proteins_are_drawn_correlated_and_compared_together() {
    check(|results, query| {
        let samples = results.posterior_predictive(2).unwrap();
        assert_eq!(samples, results.posterior_predictive(2).unwrap());
        let sizes: Vec<_> = samples[0].iter().map(|block| (block.n_rows(), block.n_cols())).collect();
        assert_eq!(sizes, [(40, N_GENES), (40, N_PROTEINS)]);
        assert!(samples[1][1].data().iter().all(|&count| count >= 0.0 && count.fract() == 0.0));
        assert_eq!(results.feature_names()[N_GENES], "protein0_protein");

        let ask = CorrelationAsk { transform: vec![1], n_samples: 2, log: true, ..CorrelationAsk::default() };
        let matrix = results.feature_correlation(&ask);
        assert_eq!(matrix.dim(), (N_GENES + N_PROTEINS, N_GENES + N_PROTEINS));
        assert!(matrix.iter().all(|value| value.abs() <= 1.0 + 1e-9));

        let of_type = |kind: usize| (0..40).filter(|&cell| query.labels[cell] == format!("type{kind}")).collect();
        let pseudocount = results.usual_pseudocount();
        let ask = GroupAsk {
            first: of_type(0),
            second: of_type(1),
            transform: vec![results.asked().code(&key("a")).unwrap(), results.asked().code(&key("b")).unwrap()],
            n_draws: 400,
            decision: Decision::Change(Change { pseudocount, ..Change::default() }),
        };
        let found = results.differential_expression(&ask).unwrap();
        assert_eq!(found.genes.len(), N_GENES + N_PROTEINS);
        assert_eq!(found.pseudocount, Some(1e-5));
        let change = |protein: usize| found.genes[N_GENES + protein].fold_change.as_ref().unwrap().median;
        assert!(change(0) > 0.0 && change(1) < 0.0, "{} {}", change(0), change(1));
        let marginal = results.marginal_log_likelihood(3).unwrap();
        assert!(marginal.iter().all(|value| value.is_finite()));
        let latent = ExpressionAsk { library: LibraryAsk::Latent, ..ExpressionAsk::default() };
        assert!(results.expression(&latent).iter().all(|&value| value >= 0.0));
    });
}

#[test]
fn upstreams_surgery_takes_the_query_s_own_mask() {
    let reference = reference(2);
    let (x, y) = (batch(4, 40), batch(5, 40));
    let query = joined(&[&x, &y]);
    let names: Vec<&str> = [["x"; 40], ["y"; 40]].concat();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    for placement in [Placement::OwnBlock, Placement::End] {
        let (cells, spec, flags, device) = (cells(&query), spec(2), Flags::default(), Device::Cpu);
        let ask = UpstreamSurgery {
            cells: &cells,
            conditions: &conditions,
            spec: &spec,
            flags,
            placement,
            device,
            extension: &Extension::default(),
        };
        let mapped = upstream_surgery(&reference, &ask, &mut Silent, &mut NoCheckpoints).unwrap().reference;
        let mask =
            |name: &str| mapped.columns[&key(name)].0.get("protein_measured.condition").unwrap().to_f32("m").unwrap();
        assert_eq!(mask("x"), [1.0, 1.0, 1.0, 1.0, 1.0, 0.0], "{placement:?}");
        assert_eq!(mask("y"), [1.0; N_PROTEINS], "{placement:?}");
        assert_eq!(mapped.columns[&key("a")], reference.columns[&key("a")], "{placement:?}: no cell of it, no decay");
    }
}

//! Numbers drawn from every model that decodes counts.

use archipelago_anndata::Csr;
use archipelago_common::task::TrainSpec;
use archipelago_models::{
    CellConditions, Device, Error, NoCheckpoints,
    results::{
        Answer, Asked, Column, Correlation, CorrelationAsk, CountResults, ExpressionAsk, Given, GroupAsk, LibraryAsk,
        differential_expression::{Change, Decision, called_at_fdr},
    },
    zoo::{ZOO, model},
};

use crate::{Batch, N_GENES, batch, cells, joined, key, reference, spec, train, train_as};

/// Runs `check` on results for the cells of batch `a`, for every model that has some.
fn check(seed: u64, check: impl Fn(&CountResults<'_>, &Batch)) {
    let a = batch(1, 60);
    let conditions = CellConditions::single(key("a"), 60);
    let mut n_models = 0;
    for model in ZOO {
        match CountResults::new(&reference(*model), &cells(&a), &conditions, seed, Device::Cpu) {
            Ok(results) => {
                check(&results, &a);
                n_models += 1;
            }
            Err(error) => assert!(matches!(error, Error::NotCountModel { .. }), "{error}"),
        }
    }
    assert!(n_models > 0);
}

#[test]
fn shares_add_up_to_one_and_counts_to_the_library() {
    check(0, |results, a| {
        let shares = results.expression(&ExpressionAsk::default());
        assert_eq!(shares.dim(), (60, N_GENES));
        assert!(shares.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-4));
        let ask = ExpressionAsk { library: LibraryAsk::Latent, n_samples: 3, ..ExpressionAsk::default() };
        let counts = results.expression(&ask);
        for (row, total) in counts.rows().into_iter().zip(a.counts.row_sums()) {
            assert!((f64::from(row.sum()) / total - 1.0).abs() < 1e-3);
        }
        let sizes = results.library_size().unwrap();
        assert!(sizes.iter().zip(a.counts.row_sums()).all(|(&size, total)| (f64::from(size) - total).abs() < 1e-2));
    });
}

#[test]
fn decoding_as_another_condition_changes_expression() {
    check(0, |results, _| {
        let transform = vec![results.asked().code(&key("b")).unwrap()];
        let own = results.expression(&ExpressionAsk::default());
        assert_ne!(own, results.expression(&ExpressionAsk { transform, ..ExpressionAsk::default() }));
        assert!(matches!(results.asked().code(&key("nobody")), Err(Error::UnknownCondition { .. })));
    });
}

#[test]
fn the_marginal_likelihood_is_at_least_the_elbo_on_average() {
    let a = batch(1, 60);
    let conditions = CellConditions::single(key("a"), 60);
    // Other models of counts have a prior that is not the standard normal which the marginal likelihood assumes.
    let reference = reference(model("scvi").unwrap());
    let results = CountResults::new(&reference, &cells(&a), &conditions, 0, Device::Cpu).unwrap();
    let marginal = results.marginal_log_likelihood(50).unwrap();
    let mean = marginal.iter().map(|&v| f64::from(v)).sum::<f64>() / 60.0;
    let fit = reference.evaluate(&cells(&a), &conditions, 0, Device::Cpu).unwrap();
    assert!(mean > fit.elbo(), "{mean} against {}", fit.elbo());
}

#[test]
fn drawn_counts_are_counts_and_repeat_with_the_seed() {
    check(7, |results, a| {
        let samples = results.posterior_predictive(2).unwrap();
        assert_eq!(samples, results.posterior_predictive(2).unwrap());
        assert_ne!(samples[0], samples[1]);
        for sample in samples.iter().map(|blocks| &blocks[0]) {
            assert_eq!((sample.n_rows(), sample.n_cols()), (60, N_GENES));
            assert!(sample.data().iter().all(|&count| count >= 0.0 && count.fract() == 0.0));
            let ratio = sample.row_sums().iter().sum::<f64>() / a.counts.row_sums().iter().sum::<f64>();
            assert!((0.3..3.0).contains(&ratio), "{ratio}");
        }
    });
}

#[test]
fn a_gene_correlates_with_itself() {
    check(0, |results, _| {
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            let ask = CorrelationAsk { transform: vec![0, 1], n_samples: 2, kind, log: false };
            let matrix = results.feature_correlation(&ask);
            assert_eq!(matrix.dim(), (results.n_features(), results.n_features()));
            assert!((0..N_GENES).all(|gene| (matrix[[gene, gene]] - 1.0).abs() < 1e-9));
            assert!(matrix.iter().all(|value| value.abs() <= 1.0 + 1e-9));
        }
    });
}

#[test]
fn marker_genes_are_found_and_empty_groups_refused() {
    let (a, b) = (batch(1, 120), batch(2, 120));
    let conditions = CellConditions::single(key("a"), 120);
    for model in ZOO {
        let batches = [("a", &a), ("b", &b)];
        // Fast enough for a decoder without hidden layers, too.
        let spec = TrainSpec { learning_rate: Some(4e-3), ..spec(150) };
        let trained = train(*model, &batches, &spec, &mut NoCheckpoints).unwrap();
        let Ok(results) = CountResults::new(&trained.reference, &cells(&a), &conditions, 0, Device::Cpu) else {
            continue;
        };
        let of_type = |kind: usize| (0..120).filter(|cell| cell % 3 == kind).collect::<Vec<_>>();
        let decision = Decision::Change(Change { pseudocount: Some(1e-5), ..Change::default() });
        let ask = GroupAsk { first: of_type(0), second: of_type(1), transform: vec![], n_draws: 2_000, decision };
        let found = results.differential_expression(&ask).unwrap();
        let change = |gene: usize| found.genes[gene].fold_change.as_ref().unwrap().median;
        assert!((0..N_GENES).filter(|gene| gene % 3 == 0).all(|gene| change(gene) > 0.5));
        assert!((0..N_GENES).filter(|gene| gene % 3 == 1).all(|gene| change(gene) < -0.5));
        let called = called_at_fdr(&found.genes.iter().map(|gene| gene.probability).collect::<Vec<_>>(), 0.05);
        assert!(called.iter().any(|&called| called));
        let statistics = results.raw_statistics(&of_type(0));
        assert!(statistics[0].mean > 1.0 && statistics[0].non_zero > 0.5 && statistics[0].normalised_mean > 100.0);
        let empty = GroupAsk { second: vec![], ..ask.clone() };
        assert!(matches!(results.differential_expression(&empty), Err(Error::TooFewCells { .. })));
        let outside = GroupAsk { second: vec![120], ..ask };
        assert!(matches!(results.differential_expression(&outside), Err(Error::Shape { .. })));
    }
}

#[test]
fn every_question_of_a_model_is_answered_and_no_other() {
    let a = batch(1, 60);
    let conditions = CellConditions::single(key("a"), 60);
    for model in ZOO {
        let asked = Asked::new(&reference(*model), &cells(&a), &conditions, 0, Device::Cpu).unwrap();
        for question in model.questions() {
            match asked.answer(question.name, &Given::defaults(question.arguments)) {
                Ok(Answer::Cells { columns, values }) => {
                    assert_eq!(values.dim(), (60, columns.len()), "{}", question.name);
                }
                Ok(Answer::Table { rows, columns, values, .. }) => {
                    assert_eq!(values.dim(), (rows.len(), columns.len()));
                }
                Ok(Answer::Files(files)) => assert!(!files.is_empty(), "{}", question.name),
                Ok(Answer::File(bytes)) => assert!(!bytes.is_empty(), "{}", question.name),
                Ok(Answer::Frame(frame)) => {
                    let n_rows = frame.rows.as_ref().map_or(60, |(_, rows)| rows.len());
                    let length = |column: &Column| match column {
                        Column::Names(names) => names.len(),
                        Column::Numbers(numbers) => numbers.len(),
                    };
                    assert!(!frame.columns.is_empty(), "{}", question.name);
                    assert!(frame.columns.iter().all(|(_, column)| length(column) == n_rows), "{}", question.name);
                    assert!(frame.values.iter().all(|(names, values)| values.dim() == (n_rows, names.len())));
                }
                // It cannot be asked without that, and says so.
                Err(Error::Argument { name, .. }) => {
                    assert!(question.arguments.iter().any(|argument| argument.name == name), "{}", question.name);
                }
                Err(other) => panic!("{}: {other}", question.name),
            }
        }
        let refused = asked.answer("why", &Given::default()).unwrap_err();
        assert_eq!(refused.to_string(), "the model does not answer `why`");
    }
}

#[test]
fn a_model_of_normalised_values_answers_what_makes_sense_of_values_and_refuses_the_rest_in_words() {
    let raw = batch(1, 60);
    let totals = raw.counts.row_sums();
    let dense = raw.counts.to_dense();
    let normalised = dense.iter().enumerate().map(|(at, &x)| (100.0 * x / totals[at / N_GENES] as f32).ln_1p());
    let values = Batch::of(Csr::from_dense(60, N_GENES, &normalised.collect::<Vec<_>>()).unwrap(), raw.labels.clone());
    let trvae = model("trvae").unwrap();
    let options = [("recon_loss", "mse".into()), ("latent_dim", 3.into()), ("hidden_layer_sizes", [8, 6][..].into())];
    let options = options.map(|(name, value): (_, serde_json::Value)| (name.to_owned(), value)).into();
    let batches = [("a", &values), ("b", &values)];
    let trained = train_as(trvae, &options, &batches, &spec(3), Device::Cpu.into(), &mut NoCheckpoints).unwrap();
    let listed: Vec<&str> = trained.reference.base.card.layout.figures.iter().map(|f| f.name.as_ref()).collect();
    assert_eq!(listed, ["reconstruction", "mmd"]);
    let both = joined(&[&values, &values]);
    let keys: Vec<_> = (0..120).map(|cell| key(if cell < 60 { "a" } else { "b" })).collect();
    let fit = trained.reference.evaluate(&cells(&both), &CellConditions::from_keys(&keys), 0, Device::Cpu).unwrap();
    assert!(fit.figure("mmd").is_some());

    let conditions = CellConditions::single(key("a"), 60);
    let alone = trained.reference.evaluate(&cells(&values), &conditions, 0, Device::Cpu).unwrap();
    assert_eq!(alone.figure("mmd"), None, "a condition is not apart from itself");
    let results = CountResults::new(&trained.reference, &cells(&values), &conditions, 0, Device::Cpu).unwrap();
    let shares = results.expression(&ExpressionAsk::default());
    assert!(shares.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-4));
    let as_they_are = results.expression(&ExpressionAsk { library: LibraryAsk::Latent, ..ExpressionAsk::default() });
    assert!(as_they_are.iter().all(|&value| value >= 0.0) && as_they_are != shares);
    assert_eq!(results.feature_correlation(&CorrelationAsk::default()).dim(), (N_GENES, N_GENES));
    let groups = |decision| {
        let (first, second) = ((0..30).collect(), (30..60).collect());
        results.differential_expression(&GroupAsk { first, second, transform: vec![], n_draws: 50, decision })
    };
    assert_eq!(groups(Decision::Vanilla).unwrap().genes.len(), N_GENES);
    groups(Decision::Change(Change { pseudocount: Some(1e-3), ..Change::default() })).unwrap();
    let refused = [
        results.library_size().err(),
        results.marginal_log_likelihood(3).err(),
        results.posterior_predictive(1).err(),
        groups(Decision::Change(Change::default())).err(),
    ];
    for error in refused {
        let error = error.expect("counts are not known").to_string();
        assert!(error.contains("normalised values"), "{error}");
    }
}

//! References and tasks made to carry single cells out of a site, each on a real worker: what must happen to them.
//!
//! A trap is a network of the zoo whose frozen weights sort cells by a random projection: each unit of its decoder sees the cells
//! beyond one threshold, and its column's gradient is the sum of their counts of one gene. Two neighbouring thresholds subtract to
//! the cells between them. What is known here and not to an attacker, where the cells lie, only makes the trap better.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
};

use archipelago_anndata::AnnData;
use archipelago_common::{
    Base, BaseCard, Columns, Digest, Layout, Tensor,
    policy::EmbeddingRelease,
    reference_dir::ReferenceDir,
    state_dict::{DType, StateDict, TensorSpec},
    task::SurgeryTask,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde_json::{Value, json};

use super::{
    Bench,
    coordinator::Coordinator,
    read_json,
    site::{authority, write_site},
};

/// Cells of the site, all in batch `c`.
struct Cells {
    genes: Vec<String>,
    /// Row-major, `[n_cells, n_genes]`.
    counts: Vec<f32>,
}

/// A trap.
struct Trap {
    n_targets: usize,
    thresholds: Vec<f32>,
    projection: Vec<f32>,
    /// What a unit adds to its gene.
    weight: f32,
}

fn bench() -> (Bench, Cells) {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let sizes = ["--n-cells", "127", "--n-genes", "300", "--out", "cells.h5ad"];
    bench.run(&[&["generate", "--batches", "c"], &sizes[..]].concat());
    let adata = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let counts = adata.matrix(None).unwrap().to_csr().unwrap().to_dense();
    (bench, Cells { genes: adata.var_names().to_vec(), counts })
}

impl Cells {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.counts.chunks_exact(self.genes.len())
    }

    /// Where each cell lies on a projection, ascending, with its row.
    fn along(&self, projection: &[f32]) -> Vec<(f32, usize)> {
        let place = |row: &[f32]| row.iter().zip(projection).map(|(x, r)| x.ln_1p() * r).sum::<f32>();
        let mut places: Vec<(f32, usize)> = self.rows().map(place).zip(0..).collect();
        places.sort_by(|a, b| a.0.total_cmp(&b.0));
        places
    }
}

impl Trap {
    /// Thresholds between all neighbours.
    fn between_all(cells: &Cells, n_targets: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let scale = 40.0 / (cells.genes.len() as f32).sqrt();
        let projection: Vec<f32> = cells.genes.iter().map(|_| scale * rng.sample::<f32, _>(StandardNormal)).collect();
        let places = cells.along(&projection);
        let between = places.windows(2).map(|pair| (pair[0].0 + pair[1].0) / 2.0);
        let thresholds = std::iter::once(places[0].0 - 1.0).chain(between).collect();
        Self { n_targets, thresholds, projection, weight: WEIGHT }
    }

    /// The same with a few of its thresholds.
    fn with_thresholds(self, chosen: std::ops::Range<usize>) -> Self {
        Self { thresholds: self.thresholds[chosen].to_vec(), ..self }
    }

    fn n_hidden(&self) -> usize {
        self.thresholds.len() * self.n_targets
    }

    /// Writes it as a reference that `alice` publishes. `change` is the last to touch its card.
    fn write(&self, bench: &Bench, cells: &Cells, change: impl FnOnce(&mut BaseCard)) -> ReferenceDir {
        let (n_genes, n_hidden, k) = (cells.genes.len(), self.n_hidden(), self.n_targets);
        let zeros = |n: usize| vec![0.0_f32; n];
        let (mut encoder, mut encoder_bias, mut mean) = (zeros(n_hidden * n_genes), zeros(n_hidden), zeros(n_hidden));
        encoder[..n_genes].copy_from_slice(&self.projection);
        (encoder_bias[0], mean[0]) = (OFFSET, 1.0);
        let (mut scale, mut scale_bias) = (zeros(n_genes * n_hidden), zeros(n_genes));
        for gene in 0..k {
            for threshold in 0..self.thresholds.len() {
                scale[gene * n_hidden + threshold * k + gene] = self.weight;
            }
            scale_bias[gene] = -8.0;
        }
        let bias: Vec<f32> = self.thresholds.iter().flat_map(|&place| vec![-place; k]).collect();
        let named = |name: &str, shape: &[usize], values: &[f32]| (name.to_owned(), Tensor::from_f32(shape, values));
        let tensors = [
            named("z_encoder.encoder.fc_layers.Layer 0.0.weight", &[n_hidden, n_genes], &encoder),
            named("z_encoder.encoder.fc_layers.Layer 0.0.bias", &[n_hidden], &encoder_bias),
            named("z_encoder.mean_encoder.weight", &[1, n_hidden], &mean),
            named("z_encoder.mean_encoder.bias", &[1], &[-OFFSET]),
            named("z_encoder.var_encoder.weight", &[1, n_hidden], &zeros(n_hidden)),
            named("z_encoder.var_encoder.bias", &[1], &[-20.0]),
            named(&format!("{LAYER}.weight"), &[n_hidden, 1], &vec![1.0; n_hidden]),
            named(&format!("{LAYER}.bias"), &[n_hidden], &bias),
            named(&format!("{LAYER}.condition.mean"), &[n_hidden], &zeros(n_hidden)),
            named("decoder.px_scale_decoder.0.weight", &[n_genes, n_hidden], &scale),
            named("decoder.px_scale_decoder.0.bias", &[n_genes], &scale_bias),
        ];
        let config = json!({
            "batch_representation": "one-hot", "deeply_inject_covariates": false, "dispersion": "gene", "dropout_rate": 0.0,
            "encode_covariates": false, "gene_likelihood": "poisson", "latent_distribution": "normal",
            "log_variational": true, "n_hidden": n_hidden, "n_latent": 1, "n_layers": 1,
            "registry": {"categorical": {}, "continuous": [], "size_factor": false},
            "use_batch_norm": "none", "use_layer_norm": "none", "use_observed_lib_size": true
        });
        let spec = TensorSpec { dtype: DType::F32, shape: vec![n_hidden] };
        let mut card = BaseCard {
            format: BaseCard::PLAIN_FORMAT,
            model: "scvi".to_owned(),
            config: serde_json::from_value(config).unwrap(),
            genes: cells.genes.clone(),
            batch_key: "batch".to_owned(),
            labels_key: None,
            labels: vec![],
            layout: Layout::plain(BTreeMap::from([(format!("{LAYER}.condition"), spec)])),
            moves_embedding: true,
            training: BTreeMap::from([("n_cells".to_owned(), 54_000.into())]),
            recipe: None,
        };
        change(&mut card);
        let of_reference =
            Columns(StateDict::from_iter([named(&format!("{LAYER}.condition"), &[n_hidden], &zeros(n_hidden))]));
        let columns = BTreeMap::from([("alice/trap/r".parse().unwrap(), of_reference)]);
        let dir = bench.path("trap");
        let _ = std::fs::remove_dir_all(&dir);
        ReferenceDir::write(&dir, &Base { card, tensors: tensors.into_iter().collect() }, &columns).unwrap()
    }

    /// The sums of counts between neighbouring thresholds, `[n_thresholds - 1][n_targets]`, from columns that moved by the sum of
    /// gradients times `gain`.
    fn read(&self, columns: &Columns, gain: impl Fn(f64) -> f64, n_cells: usize) -> Vec<Vec<f64>> {
        let values = columns.0.get(&format!("{LAYER}.condition")).unwrap().to_f32("columns").unwrap();
        let sums: Vec<f64> =
            values.iter().map(|&moved| gain(f64::from(moved)) / f64::from(self.weight) * n_cells as f64).collect();
        let rows: Vec<&[f64]> = sums.chunks_exact(self.n_targets).collect();
        rows.windows(2).map(|pair| pair[0].iter().zip(pair[1]).map(|(a, b)| a - b).collect()).collect()
    }
}

/// How many of the vectors are exactly the counts of one cell.
fn n_exact(read: &[Vec<f64>], cells: &Cells) -> usize {
    let rounded = |vector: &Vec<f64>| vector.iter().map(|x| x.round() as i64).collect::<Vec<_>>();
    let n_targets = read[0].len();
    let truth: BTreeSet<Vec<i64>> =
        cells.rows().map(|row| row[..n_targets].iter().map(|&x| x as i64).collect()).collect();
    read.iter().map(rounded).filter(|vector| vector.iter().any(|&x| x != 0) && truth.contains(vector)).count()
}

/// One huge step: the task of the attack as it was found.
fn one_step(task: &mut SurgeryTask) {
    (task.train.epochs, task.train.learning_rate, task.train.adam_eps) = (Some(1), Some(1e7), Some(0.01));
    (task.train.train_size, task.max_column_norm) = (Some(1.0), 1_000.0);
}

/// A site with a policy that offers all its cells.
fn site(bench: &Bench, reference: &ReferenceDir, policy: &str, task: impl FnOnce(&mut SurgeryTask)) -> Coordinator {
    let authority = authority();
    let coordinator = Coordinator::start(&authority, reference, task);
    for file in ["site.pem", "site.key"] {
        let _ = std::fs::remove_file(bench.path(file));
    }
    write_site(bench, &authority, "site/north", &coordinator.address);
    std::fs::write(bench.path("policy.toml"), policy).unwrap();
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    std::fs::write(bench.path("site.toml"), format!("policy = \"policy.toml\"\n{config}")).unwrap();
    coordinator
}

/// The worker declines its only task and ends; the coordinator was told why, and nothing about cells has left.
#[track_caller]
fn check_declined(bench: &Bench, coordinator: &Coordinator, why: &str) {
    let said = bench.fail(1, &ONCE);
    assert!(said.contains("the task is declined") || said.contains("does not let a reference read"), "{said}");
    let state = coordinator.state();
    assert_eq!(state.given_up.as_deref(), Some(format!("declined by the site: {why}").as_str()), "{said}");
    assert!(state.uploaded.is_empty() && state.submissions.is_empty());
    let audit = bench.run_json(&["audit", "state/audit.jsonl"]);
    let n_bytes = |kind: &str| audit["bytes_by_kind"][kind].as_u64().unwrap();
    assert_eq!(["columns", "embeddings", "label-means", "metrics", "parts"].map(n_bytes), [0; 5], "{audit}");
}

#[test]
fn without_bounds_the_trap_takes_cell_by_cell() {
    let (bench, cells) = bench();
    let trap = Trap::between_all(&cells, 64);
    let reference = trap.write(&bench, &cells, |_| ());
    let coordinator = site(&bench, &reference, UNBOUNDED, one_step);
    bench.run(&ONCE);
    let state = coordinator.state();
    let submitted = state.submissions[0].conditions.values().next().unwrap();
    // One step of Adam, turned round.
    let gain = |moved: f64| {
        let share = moved / 1e7;
        share * 0.01 / (1.0 - share.abs())
    };
    let read = trap.read(&state.columns(submitted.columns), gain, 127);
    let n_exact = n_exact(&read, &cells);
    assert!(n_exact > 100, "{n_exact} of 127 cells");
}

#[test]
fn the_trap_and_its_variants_are_declined_and_nothing_leaves() {
    let (bench, cells) = bench();
    let all = || Trap::between_all(&cells, 64);
    type Change = fn(&mut SurgeryTask);
    let as_usual: Change = |task| task.train.epochs = Some(100);
    let cases: [(Trap, Change, &str); 9] = [
        (Trap::between_all(&cells, 300), one_step, "its layers have more units than the site allows"),
        // Fewer thresholds, and fewer still.
        (all().with_thresholds(0..16), one_step, "it would release more numbers than the site's cells allow"),
        (all().with_thresholds(0..4), one_step, "its learning rate is out of the site's range"),
        // One gene after the other, in many tasks.
        (Trap { n_targets: 8, ..all() }, as_usual, "it would release more numbers than the site's cells allow"),
        // One step within the range of rates, and gradients spread over many beyond it.
        (
            all().with_thresholds(0..4),
            |task| (task.train.epochs, task.train.train_size) = (Some(1), Some(1.0)),
            "it takes fewer steps than the site asks for",
        ),
        (
            all().with_thresholds(0..4),
            |task| (task.train.epochs, task.train.learning_rate) = (Some(1_000), Some(1e4)),
            "its learning rate is out of the site's range",
        ),
        (
            all().with_thresholds(0..4),
            |task| (task.train.epochs, task.train.adam_eps) = (Some(1_000), Some(1e4)),
            "its epsilon is out of the site's range",
        ),
        // One cell is trained on, or one at a time.
        (
            all().with_thresholds(0..4),
            |task| task.train.train_size = Some(0.01),
            "it trains on a smaller share of the cells than the site asks for",
        ),
        (
            all().with_thresholds(0..4),
            |task| task.train.minibatch = Some(1),
            "its minibatches are not of a size that the site allows",
        ),
    ];
    for (trap, task, why) in cases {
        let reference = trap.write(&bench, &cells, |_| ());
        check_declined(&bench, &site(&bench, &reference, TRUSTING, task), why);
    }
    let wide = |task: &mut SurgeryTask| task.max_column_norm = 1e12;
    let reference = all().with_thresholds(0..4).write(&bench, &cells, |_| ());
    check_declined(&bench, &site(&bench, &reference, TRUSTING, wide), "its norm of columns is out of the site's range");
    // A layout that the model does not have, and a model that the site does not want.
    let more = TensorSpec { dtype: DType::F32, shape: vec![64] };
    let reference = all().with_thresholds(0..4).write(&bench, &cells, |card| {
        let mut columns = card.layout.columns();
        columns.insert("further".to_owned(), more);
        card.layout = Layout::plain(columns);
    });
    let why = "its reference has another layout than its model";
    check_declined(&bench, &site(&bench, &reference, TRUSTING, as_usual), why);
    let reference = all().with_thresholds(0..4).write(&bench, &cells, |_| ());
    let policy = format!("{TRUSTING}[tasks]\nmodels = [\"scanvi\"]\n");
    check_declined(&bench, &site(&bench, &reference, &policy, as_usual), "its model is not on the site's list");
}

/// What is left to whoever keeps within every bound: gradients so small that Adam adds them up, over as many steps as are allowed, and
/// two thresholds around one cell. Where columns begin at a place that only the site knows, they tell next to nothing of it.
#[test]
fn within_the_bounds_a_task_may_read_one_cell_and_none_where_columns_begin_hidden() {
    let (bench, cells) = bench();
    let (rate, epochs, eps) = (0.02, 125, 0.1);
    // With a small weight sums are exact; a large one is what moves columns furthest.
    let read = |weight: f32, policy: &str| {
        let trap = Trap { weight, ..Trap::between_all(&cells, 150).with_thresholds(60..62) };
        let reference = trap.write(&bench, &cells, |_| ());
        let coordinator = site(&bench, &reference, &format!("{TRUSTING}{policy}"), |task| {
            (task.train.epochs, task.train.learning_rate) = (Some(epochs), Some(rate));
            (task.train.adam_eps, task.train.train_size) = (Some(eps), Some(1.0));
        });
        for dir in ["state", "results"] {
            let _ = std::fs::remove_dir_all(bench.path(dir));
        }
        bench.run(&ONCE);
        let state = coordinator.state();
        let submitted = state.submissions[0].conditions.values().next().unwrap();
        let gain = |moved: f64| {
            let share = moved / (rate * f64::from(epochs));
            eps * share / (1.0 - share.abs())
        };
        trap.read(&state.columns(submitted.columns), gain, 127).remove(0)
    };
    let cell = cells.along(&Trap::between_all(&cells, 1).projection)[60].1;
    let truth: Vec<f64> = cells.rows().nth(cell).unwrap()[..150].iter().map(|&count| f64::from(count)).collect();
    // Who reads knows how large counts are: without that, one wild reading alone decides a correlation.
    let most = truth.iter().copied().fold(0.0, f64::max);
    let told = |read: &[f64]| {
        let likely: Vec<f64> = read.iter().map(|read| read.clamp(0.0, most)).collect();
        correlation(&likely, &truth)
    };
    let hiding = "[tasks]\nstart_std = 0.05\n";
    let (open, hidden, moved) = (read(1e-5, ""), read(1e-5, hiding), read(2e-3, hiding));
    let n_right = |read: &[f64]| read.iter().zip(&truth).filter(|(read, truth)| read.round() == **truth).count();
    let figures =
        [&open, &hidden, &moved].map(|read| format!("{} right, correlation {:.3}", n_right(read), told(read)));
    let n = truth.len();
    let _ = writeln!(std::io::stderr(), "of {n} counts of one cell, open, hidden, hidden and moved far: {figures:?}");
    // Of readings that have nothing to do with the counts, five standard deviations.
    let chance = 5.0 / (n as f64 - 1.0).sqrt();
    assert!(told(&open) > 0.9 && told(&hidden).abs() < chance && told(&moved).abs() < chance, "{figures:?}");
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let centred = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect::<Vec<_>>()
    };
    let (a, b) = (centred(a), centred(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

#[test]
fn a_model_of_another_kind_with_a_huge_step_is_declined() {
    let bench = Bench::new();
    for model in ["trvae", "scanvi"] {
        let out = format!("{model}-reference");
        let train = ["train", "cells.h5ad", "--model", model, "--batches", "a,b", "--epochs", "1", "--device", "cpu"];
        let more: &[&str] = match model {
            "trvae" => &["--hidden-layer-sizes", "16"],
            _ => &["--n-hidden", "16", "--labels-key", "cell_type"],
        };
        bench.run(&[&train[..], more, &["--out", &out]].concat());
        let reference = ReferenceDir::open(&bench.path(&out)).unwrap();
        let coordinator = site(&bench, &reference, TRUSTING, one_step);
        check_declined(&bench, &coordinator, "its learning rate is out of the site's range");
    }
}

#[test]
fn what_left_of_the_same_cells_is_remembered_over_tasks_and_restarts() {
    let bench = Bench::with_reference();
    let reference = ReferenceDir::open(&bench.path("reference")).unwrap();
    // 32 numbers a task, of 40 cells.
    let policy = format!("{TRUSTING}[budget]\ncolumns = 1.8\n");
    let coordinator = site(&bench, &reference, &policy, |_| ());
    let served = |id: u64, seed: u64| {
        {
            let task = &mut coordinator.state().task;
            (task.id, task.task.train.seed) = (archipelago_common::TaskId(id), seed);
            task.assignments.clear();
        }
        bench.command(&ONCE).output().unwrap()
    };
    assert!(served(1, 0).status.success() && served(2, 1).status.success());
    for id in [3, 4] {
        let refused = served(id, id);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && said.contains("96 numbers of columns would have left"), "{said}");
        assert!(said.contains("of 72"), "{said}");
    }
    let state = coordinator.state();
    assert_eq!(state.given_up.as_deref(), Some("declined by the site: the site's budget for its cells is spent"));
    assert_eq!(state.submissions.len(), 2);
    let lines = std::fs::read_to_string(bench.path("state/ledger.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(!lines.contains("c-0000"), "names of cells are not in it: {lines}");
}

#[test]
fn a_card_reads_no_column_that_the_site_does_not_name_and_tells_no_label_of_its_own() {
    let bench = Bench::new();
    let train = ["train", "cells.h5ad", "--model", "scanvi", "--batches", "a,b", "--labels-key", "cell_type"];
    let small = ["--n-hidden", "16", "--epochs", "1", "--device", "cpu", "--out", "reference"];
    bench.run(&[&train[..], &small].concat());
    let honest = ReferenceDir::open(&bench.path("reference")).unwrap();
    let mut base = honest.base().unwrap();
    base.card.labels_key = Some("donor".to_owned());
    let reference = ReferenceDir::write(&bench.path("trap"), &base, &honest.columns().unwrap()).unwrap();
    let told = |policy: &str| {
        let means = "embeddings = { label-means = { min_cells = 2, min_donors = 0 } }\n";
        let coordinator = site(&bench, &reference, &format!("{TRUSTING}{means}{policy}"), |task| {
            (task.train.epochs, task.embeddings) = (Some(2), EmbeddingRelease::Full);
        });
        let _ = std::fs::remove_dir_all(bench.path("state"));
        bench.run(&ONCE);
        let state = coordinator.state();
        let submitted = state.submissions[0].conditions.values().next().unwrap();
        let bytes = submitted.embeddings.map(|blob| state.bytes(blob)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains("c-donor-")
    };
    assert!(!told(""));
    assert!(!told("new_labels = true\n"), "the column is not read");
    assert!(!told("may_read = [\"donor\"]\n"), "its names are not the reference's");
}

#[test]
fn a_recipe_of_others_leaves_no_cell_out() {
    let (bench, cells) = bench();
    let trap = Trap::between_all(&cells, 64).with_thresholds(0..4);
    let totals: BTreeSet<i64> = cells.rows().map(|row| row.iter().sum::<f32>() as i64).collect();
    let least = totals.iter().nth(1).copied().unwrap();
    let reference = trap.write(&bench, &cells, |card| {
        let digest = Digest::of(b"recipe").to_string();
        card.recipe = Some(json!({ "digest": digest, "recipe": { "filter_cells": { "min_counts": least } } }));
    });
    let n_cells = |policy: &str| -> Value {
        let coordinator = site(&bench, &reference, policy, |task| task.train.epochs = Some(2));
        for dir in ["state", "results"] {
            let _ = std::fs::remove_dir_all(bench.path(dir));
        }
        bench.run(&ONCE);
        drop(coordinator);
        read_json(&bench.path("results/task-1/summary.json"))["conditions"]["north/pbmc/c"]["n_cells"].clone()
    };
    assert_eq!(n_cells(TRUSTING), 127);
    assert!(n_cells(&format!("{TRUSTING}[tasks]\ncell_filters = true\n")).as_u64() < Some(127));
}

#[test]
fn figures_leave_rounded_and_losses_on_the_way_not_at_all() {
    let bench = Bench::with_reference();
    let reference = ReferenceDir::open(&bench.path("reference")).unwrap();
    let coordinator = site(&bench, &reference, TRUSTING, |task| task.train.epochs = Some(3));
    bench.run(&ONCE);
    let state = coordinator.state();
    assert!(state.n_renewals > 0 && state.losses.iter().all(Option::is_none), "{:?}", state.losses);
    let metrics = state.submissions[0].conditions.values().next().unwrap().metrics.clone().unwrap();
    assert_eq!(metrics.clone().rounded(0), metrics, "what is rounded stays what it is");
    let exact = read_json(&bench.path("results/task-1/summary.json"));
    let exact = &exact["conditions"]["north/pbmc/c"];
    for (name, figure) in &metrics.figures {
        let exact = exact[name].as_f64().unwrap();
        assert!((figure - exact).abs() <= 0.005 * exact.abs(), "{name}: {figure} and {exact}");
        assert!(format!("{:e}", figure.abs()).len() <= 8, "{name} is {figure}");
    }
}

const ONCE: [&str; 4] = ["serve", "--config", "site.toml", "--once"];
const TRUSTING: &str = "min_cells = 20\ntrusted_operators = [\"alice\"]\n";
const UNBOUNDED: &str = "min_cells = 20\ntrusted_operators = [\"alice\"]\n[tasks]\nmax_hidden = 1000000\n\
    max_numbers_per_cell = 1e6\nmin_steps = 1\nmax_minibatch_share = 2.0\nlearning_rate = [1e-9, 1e9]\n\
    max_column_norm = 1e12\nmax_travel_per_cell = 1e9\n[budget]\ncolumns = inf\n";
/// The layer of the decoder whose columns leave.
const LAYER: &str = "decoder.px_decoder.fc_layers.Layer 0.0";
/// Keeps the encoder's unit active: it passes the projection on.
const OFFSET: f32 = 4_000.0;
/// What a unit adds to its gene: little, so that rates stay what they are.
const WEIGHT: f32 = 1e-9;

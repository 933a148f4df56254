//! What is tried: cells of a batch by their number, and people by theirs, with and without noise.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use archipelago_common::policy::{EmbeddingRelease, SitePolicy};
use archipelago_worker::{
    egress::{Embeddings, Latent},
    privacy,
};
use rand::{
    SeedableRng as _,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    Args,
    attack::{self, Members, Seen, Verdict},
    pooled::Pooled,
    report,
    shadows::{Batch, Door, Pool, Shadow, labels, numbers},
};

/// One row of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// What is asked about: `cell` or `person`.
    pub(crate) who: &'static str,
    /// Cells in a mapping, or what else was varied.
    pub(crate) cells: String,
    /// What left.
    pub(crate) release: String,
    /// How membership was asked.
    pub(crate) attack: &'static str,
    /// How well it was told.
    pub(crate) verdict: Verdict,
    /// Of columns with noise: its `ε` at `δ` = 1e-6, for one release.
    pub(crate) epsilon: Option<f64>,
    /// Of columns: what is left of what mapping gains in likelihood for cells that were not mapped, in nats for each cell.
    pub(crate) gain: Option<f64>,
}

/// Who is in which mapping.
struct Design {
    who: &'static str,
    cells: String,
    members: Members,
    choices: Vec<Vec<usize>>,
    /// The cells by which a unit is asked about.
    probes: Vec<Vec<usize>>,
}

/// Does all of it.
pub(crate) fn run(args: &Args) -> Result<(Vec<Finding>, PathBuf)> {
    ensure!(args.shadows.is_multiple_of(2), "--shadows is {}, expected an even number", args.shadows);
    std::fs::create_dir_all(&args.out)?;
    let mut found = Vec::new();
    let pbmc = args.data.join("pbmc_5batch.h5ad");
    let reference = train(args, "pbmc", &pbmc, &["--batch-key", "batch", "--batches", "10x_3pv1,10x_3pv2"])?;
    let pool = Pool::open(
        &reference,
        &Batch { path: &pbmc, batch_key: "batch", batch: "10x_5p", labels_key: "cell_type", donor_key: None },
    )?;
    for &n_cells in &args.cells {
        let design = of_cells(&pool, n_cells, args)?;
        let shadows = map(&pool, &design)?;
        found.extend(try_all(&pool, &design, &shadows, args)?);
    }
    let tcr = args.data.join("tcr_lung_blood.h5ad");
    let reference = train(args, "tcr", &tcr, &["--batch-key", "source", "--batches", "lung"])?;
    let pool = Pool::open(
        &reference,
        &Batch { path: &tcr, batch_key: "source", batch: "blood", labels_key: "cell_type", donor_key: Some("donor") },
    )?;
    for n_people in [1, 2, 3] {
        // The same people are drawn, whichever of their cells are looked at.
        let [same, other] = [Probe::SameCells, Probe::OtherCells].map(|probe| of_people(&pool, n_people, probe, args));
        let (same, other) = (same?, other?);
        let shadows = map(&pool, &same)?;
        for design in [same, other] {
            found.extend(try_all(&pool, &design, &shadows, args)?);
        }
    }
    Ok((found, args.out.clone()))
}

/// Trains a reference by the worker, unless it is there.
fn train(args: &Args, name: &str, data: &Path, of_data: &[&str]) -> Result<PathBuf> {
    let out = args.out.join(format!("reference-{name}"));
    if out.join("version.json").exists() {
        return Ok(out);
    }
    report::say(&format!("training the reference `{name}`"));
    let worker = std::env::current_exe()?.with_file_name("archipelago-worker");
    let status = Command::new(&worker)
        .arg("train")
        .arg(data)
        .args(of_data)
        .args(["--model", "scvi", "--epochs", "50", "--seed", "0", "--quiet", "--out"])
        .arg(&out)
        .status()
        .with_context(|| format!("failed to start `{}`; build it first: `make build`", worker.display()))?;
    ensure!(status.success(), "the reference could not be trained");
    Ok(out)
}

/// Halves of `2 n_cells` cells of the batch.
fn of_cells(pool: &Pool, n_cells: usize, args: &Args) -> Result<Design> {
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed + n_cells as u64);
    let mut all: Vec<usize> = (0..pool.group.cells.len()).collect();
    ensure!(all.len() >= 2 * n_cells, "the batch has {} cells, too few for {n_cells} of twice as many", all.len());
    all.shuffle(&mut rng);
    all.truncate(2 * n_cells);
    let (mut members, mut choices) = (Vec::new(), Vec::new());
    for _ in 0..args.shadows / 2 {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.shuffle(&mut rng);
        for half in order.chunks(n_cells) {
            let is_in = |unit| half.contains(&unit);
            members.push((0..all.len()).map(is_in).collect());
            let mut choice: Vec<usize> = half.iter().map(|&unit| all[unit]).collect();
            choice.sort_unstable();
            choices.push(choice);
        }
    }
    let probes = all.into_iter().map(|cell| vec![cell]).collect();
    Ok(Design { who: "cell", cells: n_cells.to_string(), members, choices, probes })
}

/// By which cells of a person membership is asked.
#[derive(Clone, Copy)]
enum Probe {
    /// Those of which some were mapped, if the person is in.
    SameCells,
    /// Others of the same person, that are in no mapping.
    OtherCells,
}

/// Some people's cells: so many of each, from one half of what each has.
fn of_people(pool: &Pool, n_people: usize, probe: Probe, args: &Args) -> Result<Design> {
    let donors = pool.group.annotations.donors().context("the cells name no donors")?;
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed + 1_000 * n_people as u64);
    let mut names: Vec<&String> = donors.iter().flatten().collect();
    names.sort_unstable();
    names.dedup();
    let mut halves: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    for name in &names {
        let mut cells: Vec<usize> = (0..donors.len()).filter(|&cell| donors[cell].as_ref() == Some(*name)).collect();
        cells.shuffle(&mut rng);
        let others = cells.split_off(cells.len() / 2);
        halves.push((cells, others));
    }
    // Not all of a half: the same people are other cells in each mapping, as they would be in another sample of them.
    let n_each = 3 * halves.iter().map(|(cells, _)| cells.len()).min().context("there are no people")? / 4;
    let (mut members, mut choices) = (Vec::new(), Vec::new());
    for _ in 0..args.shadows {
        let mut people: Vec<usize> = (0..names.len()).collect();
        people.shuffle(&mut rng);
        people.truncate(n_people);
        members.push((0..names.len()).map(|person| people.contains(&person)).collect());
        let mut choice: Vec<usize> = people
            .iter()
            .flat_map(|&person| halves[person].0.choose_multiple(&mut rng, n_each).copied().collect::<Vec<_>>())
            .collect();
        choice.sort_unstable();
        choices.push(choice);
    }
    let (probes, by) = match probe {
        Probe::SameCells => (halves.iter().map(|(cells, _)| cells.clone()).collect(), "cells they are drawn from"),
        Probe::OtherCells => (halves.iter().map(|(_, others)| others.clone()).collect(), "other cells"),
    };
    let cells = format!("{n_people} of {} people, {n_each} each, by {by}", names.len());
    Ok(Design { who: "person", cells, members, choices, probes })
}

fn map(pool: &Pool, design: &Design) -> Result<Vec<Shadow>> {
    report::say(&format!("{} mappings of {} cells", design.choices.len(), design.choices[0].len()));
    pool.map(&design.choices)
}

/// Every release of a design, and every attack on it.
fn try_all(pool: &Pool, design: &Design, shadows: &[Shadow], args: &Args) -> Result<Vec<Finding>> {
    report::say(&format!("{}: {}", design.who, design.cells));
    let mut found = Vec::new();
    let mut finding = |release: &str, attack, scores: &Seen, epsilon, gain| {
        if let Some(verdict) = attack::judge(scores, &design.members, args.seed) {
            let (who, cells, release) = (design.who, design.cells.clone(), release.to_owned());
            found.push(Finding { who, cells, release, attack, verdict, epsilon, gain });
        }
    };
    let open = SitePolicy { embeddings: EmbeddingRelease::Full, ..SitePolicy::default() };
    let untrained = pool.elbo(&shadows[0].initial(pool))?;
    let mut door = Door::new(&open)?;
    let plain = shadows.iter().map(|shadow| door.columns(pool, shadow)).collect::<Result<Vec<_>>>()?;
    let norms =
        plain.iter().map(|columns| attack::distance(&numbers(columns), &[0.0].repeat(numbers(columns).len())).sqrt());
    let mut norms: Vec<f64> = norms.collect();
    norms.sort_by(f64::total_cmp);
    let clip = norms[norms.len() / 2];

    for mu in NOISES {
        let policy = match mu {
            None => open.clone(),
            Some(mu) => SitePolicy { clip_norm: Some(clip), noise_std: 2.0 * clip / mu, ..open.clone() },
        };
        let mut door = Door::new(&policy)?;
        let columns = shadows.iter().map(|shadow| door.columns(pool, shadow)).collect::<Result<Vec<_>>>()?;
        let elbo = columns.iter().map(|columns| pool.elbo(columns)).collect::<Result<Vec<_>>>()?;
        let seen: Seen = elbo.iter().map(|elbo| design.of_units(|cell| Some(elbo[cell]))).collect();
        let release = match mu {
            None => "columns".to_owned(),
            Some(mu) => format!("columns, noise of {:.3} (μ = {mu})", 2.0 * clip / mu),
        };
        let epsilon = mu.map(|mu| privacy::epsilon_at(mu, DELTA));
        let gain = design.gain_of_others(&elbo, &untrained);
        let ratios = attack::likelihood_ratios(&seen, &design.members);
        finding(&release, "likelihood ratio", &ratios, epsilon, Some(gain));
        if mu.is_none() {
            finding(&release, "likelihood alone", &seen, epsilon, Some(gain));
        }
        let releases: Vec<Vec<f64>> = columns.iter().map(numbers).collect();
        let votes = attack::nearest_shadows(&releases, &design.members, NEAREST);
        finding(&release, "nearest mappings", &votes, epsilon, Some(gain));
    }

    let mut seen: [Seen; 3] = Default::default();
    for (shadow, columns) in shadows.iter().zip(&plain) {
        let places = pool.places(columns)?;
        for (seen, asked) in seen.iter_mut().zip(ASKED) {
            let left = door.embeddings(pool, shadow, &places, asked)?;
            seen.push(design.of_units(|cell| nearness(pool, &places, cell, left.as_ref())));
        }
    }
    for (seen, name) in seen.iter().zip(["embeddings", "label means of 2 cells", "label means of 10 cells"]) {
        let ratios = attack::likelihood_ratios(seen, &design.members);
        finding(name, "likelihood ratio", &ratios, None, None);
        finding(name, "nearest neighbour", seen, None, None);
    }
    for min_cells in POOLED {
        let mut seen = Seen::new();
        for (shadow, columns) in shadows.iter().zip(&plain) {
            let (places, labels) = (pool.places(columns)?, labels(pool)?);
            let left = Pooled::of(&places, labels, &shadow.cells, min_cells)?;
            let weight = |cell: usize| left.leverage(labels[cell].as_ref()?, places.row(cell));
            seen.push(design.of_units(|cell| weight(cell).map(|leverage| -leverage.ln())));
        }
        let name = format!("pooled statistics of {min_cells} cells");
        finding(&name, "likelihood ratio", &attack::likelihood_ratios(&seen, &design.members), None, None);
        finding(&name, "leverage", &seen, None, None);
    }
    Ok(found)
}

impl Design {
    /// What is seen of units, from what is seen of cells: the mean over the cells by which each is asked about.
    fn of_units(&self, of_cell: impl Fn(usize) -> Option<f64>) -> Vec<Option<f64>> {
        let of_unit = |cells: &Vec<usize>| {
            let values: Vec<f64> = cells.iter().filter_map(|&cell| of_cell(cell)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        self.probes.iter().map(of_unit).collect()
    }

    /// Mean gain in likelihood of units that were not mapped.
    fn gain_of_others(&self, elbo: &[Vec<f64>], untrained: &[f64]) -> f64 {
        let (mut sum, mut n) = (0.0, 0.0);
        for (elbo, members) in elbo.iter().zip(&self.members) {
            for (cells, _) in self.probes.iter().zip(members).filter(|(_, is_member)| !**is_member) {
                sum += cells.iter().map(|&cell| elbo[cell] - untrained[cell]).sum::<f64>();
                n += cells.len() as f64;
            }
        }
        sum / n
    }
}

/// How near a cell's place is to what left: to the nearest place, or to the mean of its label.
fn nearness(pool: &Pool, places: &Latent, cell: usize, left: Option<&Embeddings>) -> Option<f64> {
    let to = |row: &[f32]| -> f64 {
        -places.row(cell).iter().zip(row).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    match left? {
        Embeddings::Cells(left) => left.rows().map(to).max_by(f64::total_cmp),
        Embeddings::LabelMeans(means) => {
            let label = labels(pool).ok()?[cell].as_ref()?;
            means.get(label).map(|mean| to(&mean.mean))
        }
    }
}

impl Shadow {
    /// The columns that it began with: the same for every shadow.
    fn initial(&self, pool: &Pool) -> archipelago_common::Columns {
        self.surgery().initial[pool.key()].clone()
    }
}

/// `μ` of the noise that is tried, for columns clipped to the median of their norms.
const NOISES: [Option<f64>; 5] = [None, Some(100.0), Some(30.0), Some(10.0), Some(1.0)];
const ASKED: [EmbeddingRelease; 3] = [
    EmbeddingRelease::Full,
    EmbeddingRelease::LabelMeans { min_cells: 2, min_donors: 0 },
    EmbeddingRelease::LabelMeans { min_cells: 10, min_donors: 0 },
];
/// Least cells of a label whose statistics are pooled: as many as there are latent dimensions, and what `docs/policy.md` begins with.
const POOLED: [u64; 2] = [10, 50];
const DELTA: f64 = 1e-6;
/// Mappings that vote.
const NEAREST: usize = 7;

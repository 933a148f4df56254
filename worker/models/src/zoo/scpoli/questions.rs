//! What scPoli is asked: types with their uncertainty, prototypes, embeddings of samples, a new type.

use archipelago_common::pool::Pool;
use ndarray::{Array2, Axis, s};
use tch::Tensor;

use super::{
    ScpoliModule,
    classify::{NewType, Sureness, classify, scale},
    contributions,
    file::PrototypeFile,
    module::EUCLIDEAN,
    prototypes::{OfType, Statistics, cluster},
};
use crate::{
    error::{Error, Result},
    model::Embedder as _,
    nn::of_rows,
    reference::to_array,
    results::{Answer, Argument, Asked, Column, Frame, Given, QuestionCard},
};

/// Cell types, and how sure they are.
pub(super) const CLASSIFY: QuestionCard = QuestionCard {
    name: "classify",
    help: "The cell type of every cell, and how sure that is: the nearest prototype and its distance.\n\n\
           A cell that is far from every prototype may be of a type that the reference does not know: `--threshold` says how \
           far, and such cells are called what `--unknown` says. Latent states are posterior means; upstream draws them, \
           which costs 2 to 4 points of accuracy, and so does `--sample`. Prototypes are those of the reference, those that sites \
           have contributed of types that it lacks, and those of a file that `add-cell-type` wrote.",
    examples: &[
        "classify mapped query.h5ad --out types.csv",
        "classify mapped query.h5ad --threshold 2.5 --unknown novel --out query_types.h5ad",
        "classify mapped query.h5ad --prototypes alpha.safetensors --out types.csv",
    ],
    is_of_cells: true,
    arguments: &[
        Argument::number(
            THRESHOLD,
            0.0,
            "The distance beyond which a cell is of no known type; 0 is no bound. With --probability the smallest probability.",
        ),
        Argument::names(UNKNOWN, "What a cell of no known type is called [default: Unknown]"),
        Argument::flag(PROBABILITY, "Tell the probability of the type, a certainty, in place of the distance."),
        Argument::flag(SCALE, "Move the uncertainties of these cells to 0 to 1."),
        Argument::number(P, EUCLIDEAN, "The order of the norm that distances are."),
        Argument::flag(DISTANCES, "Also write the distance to every prototype, or its probability."),
        Argument::flag(SAMPLE, "Draw latent states, as upstream does, where their means would be taken."),
        Argument::file(PROTOTYPES, "Prototypes of further types, as `add-cell-type` writes them."),
    ],
};

/// The prototypes as a table.
pub(super) const PROTOTYPES_TABLE: QuestionCard = QuestionCard {
    name: "prototypes",
    help: "The prototypes of a reference: a point of the latent space for each cell type, and for clusters of cells without one.\n\n\
           `labeled` are those of the types the reference was trained with, `pooled` those that sites have contributed: the \
           mean of all their cells of the type, put together from sums. `unlabeled` are clusters. Each is classified as cells are.",
    examples: &["prototypes reference --out prototypes.h5ad", "prototypes merged --what pooled --out pooled.csv"],
    is_of_cells: false,
    arguments: &[
        Argument::choice(
            WHAT,
            &[
                (LABELED, "of the types that the reference was trained with"),
                (UNLABELED, "of clusters of cells without a type"),
                (POOLED, "of the types that sites have contributed"),
            ],
            "Which prototypes.",
        ),
        Argument::file(PROTOTYPES, "Prototypes of further types, as `add-cell-type` writes them."),
    ],
};

/// Embeddings of conditions.
pub(super) const SAMPLE_EMBEDDINGS: QuestionCard = QuestionCard {
    name: "sample-embeddings",
    help: "The embedding of every sample (batch): what the model has learnt of it, as numbers that can be compared.\n\n\
           Samples that are alike lie close to each other. An h5ad has the numbers as `X`, the first two principal components as \
           `obsm['X_pca']` for `plot embedding`, and what `--covariates` says of each sample's first cell in `obs`.",
    examples: &[
        "sample-embeddings mapped query.h5ad --covariates disease,assay --out samples.h5ad",
        "sample-embeddings mapped query.h5ad --out samples.csv",
    ],
    is_of_cells: true,
    arguments: &[Argument::columns(
        COVARIATES,
        "Obs columns that say something of samples: the value of the first cell of each is taken.",
    )],
};

/// A type that the reference lacks, made of clusters.
pub(super) const ADD_CELL_TYPE: QuestionCard = QuestionCard {
    name: "add-cell-type",
    help: "A prototype for a type that the reference does not know, made of clusters of cells.\n\n\
           The cells are put into clusters (`clusters` shows them); the new prototype is the mean of those that `--clusters` names. \
           The file is for `--prototypes` of the other questions: it holds means and covariances, and fits this reference only.",
    examples: &["add-cell-type mapped query.h5ad --name alpha --clusters 3,7 --out alpha.safetensors"],
    is_of_cells: true,
    arguments: &[
        Argument::names(NAME, "Name of the new type."),
        Argument::names(CLUSTERS, "Numbers of the clusters that it is made of."),
        Argument::number(RESOLUTION, 2.0, "Resolution of the clustering."),
        Argument::flag(SAMPLE, "Draw latent states, as upstream does, where their means would be taken."),
        Argument::file(PROTOTYPES, "A file to which the type is added."),
    ],
};

/// Clusters of cells, as a new type is made of them.
pub(super) const CLUSTERS_TABLE: QuestionCard = QuestionCard {
    name: "clusters",
    help: "The clusters that cells without a type are put into, to be looked at before one of them becomes a type.\n\n\
           The same cells, resolution and seed give the same clusters here and in `add-cell-type`. The largest is number 0.",
    examples: &["clusters mapped query.h5ad --resolution 2 --out clusters.csv"],
    is_of_cells: true,
    arguments: &[
        Argument::number(RESOLUTION, 2.0, "Resolution of the clustering."),
        Argument::flag(SAMPLE, "Draw latent states, as upstream does, where their means would be taken."),
    ],
};

/// The answer to a question.
pub(super) fn answer(module: &ScpoliModule, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    match question {
        name if name == CLASSIFY.name => classify_cells(module, asked, given),
        name if name == PROTOTYPES_TABLE.name => prototypes(module, asked, given),
        name if name == SAMPLE_EMBEDDINGS.name => Ok(sample_embeddings(module, asked, given)),
        name if name == ADD_CELL_TYPE.name => add_cell_type(module, asked, given),
        name if name == CLUSTERS_TABLE.name => clusters(module, asked, given),
        _ => Err(Error::NotAnswered { question: question.to_owned() }),
    }
}

/// Types that cells are compared with.
struct Candidates {
    names: Vec<String>,
    means: Tensor,
}

/// The candidates of every level: the reference's own types; on the first level those that sites and files add, too.
fn candidates(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Result<Vec<(&'static str, Candidates)>> {
    let (levels, prototypes) = (module.levels(), module.prototypes());
    let present = prototypes.are_present();
    let further = further(module, asked, given)?;
    let own = levels.names().enumerate().map(|(level, field)| {
        let codes: Vec<i64> = levels.of_level(level).iter().copied().filter(|&code| present[code as usize]).collect();
        let mut names: Vec<String> = codes.iter().map(|&code| levels.types()[code as usize].clone()).collect();
        let codes = Tensor::from_slice(&codes).to_device(prototypes.mean().device());
        let mut means = vec![prototypes.mean().index_select(0, &codes).to_device(tch::Device::Cpu)];
        if level == 0 {
            for (name, mean) in &further {
                names.push(name.clone());
                means.push(mean.unsqueeze(0));
            }
        }
        (field, Candidates { names, means: Tensor::cat(&means, 0) })
    });
    let mut all: Vec<_> = own.collect();
    if all.is_empty() && !further.is_empty() {
        let (names, means): (Vec<String>, Vec<Tensor>) = further.into_iter().unzip();
        all.push((crate::data::LABELS, Candidates { names, means: Tensor::stack(&means, 0) }));
    }
    all.retain(|(_, candidates)| !candidates.names.is_empty());
    if all.is_empty() {
        return Err(Error::NotLabelModel { model: "scpoli, trained without cell types,".to_owned() });
    }
    Ok(all)
}

/// Types that the reference lacks: of the pool, then of a file.
fn further(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Result<Vec<(String, Tensor)>> {
    let present = module.prototypes().are_present();
    let is_own = |name: &str| module.levels().types().iter().zip(&present).any(|(own, is)| own == name && *is);
    let mut further: Vec<(String, Tensor)> = Vec::new();
    if let Some(pool) = asked.pooled(&contributions::part()) {
        let new = pool.entries().filter(|name| !is_own(name));
        let means = of_pool(pool, new).map(|found| found.map(|(name, of_type)| (name.to_owned(), of_type.mean())));
        further.extend(means.collect::<Result<Vec<_>>>()?);
    }
    if let Some(bytes) = given.file(PROTOTYPES) {
        for (name, mean) in PrototypeFile::read(bytes, module)?.means() {
            if is_own(&name) || further.iter().any(|(known, _)| *known == name) {
                let (found, expected) = (format!("of `{name}`, which has a prototype"), "other types".to_owned());
                return Err(Error::Argument { name: PROTOTYPES, found, expected });
            }
            further.push((name, mean));
        }
    }
    Ok(further)
}

/// What a pool says of some of its entries.
fn of_pool<'a>(
    pool: &'a Pool,
    entries: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = Result<(&'a str, OfType)>> {
    let one = move |name: &'a str| Some(Statistics::of_pool(pool, name).transpose()?.map(|of_type| (name, of_type)));
    entries.filter_map(one)
}

fn latent(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Result<Array2<f32>> {
    let is_drawn = given.flag(SAMPLE);
    let latent = asked.by_chunk("latent", |minibatch, pass| {
        if is_drawn { module.inference(minibatch, pass).z } else { module.posterior(minibatch, pass).mean }
    });
    match latent.iter().find(|value| !value.is_finite()) {
        None => Ok(latent),
        Some(value) => Err(Error::Value {
            part: "latent states".to_owned(),
            found: value.to_string(),
            expected: "finite numbers".to_owned(),
        }),
    }
}

fn classify_cells(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let (p, threshold) = (given.number(P), given.number(THRESHOLD));
    let refuse = |name, found: f64, expected: &str| {
        Err(Error::Argument { name, found: found.to_string(), expected: expected.to_owned() })
    };
    if p.is_nan() || p < 1.0 {
        return refuse(P, p, "a number of 1 or more");
    }
    if threshold.is_nan() || threshold < 0.0 {
        return refuse(THRESHOLD, threshold, "0 or a number above it");
    }
    let candidates = candidates(module, asked, given)?;
    let latent = latent(module, asked, given)?;
    let sureness = if given.flag(PROBABILITY) { Sureness::Probability } else { Sureness::Distance };
    let unknown = given.names(UNKNOWN).first().map_or("Unknown", String::as_str);
    let mut frame = Frame::of_cells();
    for (field, Candidates { names, means }) in candidates {
        let mut found = classify(latent.view(), &means, p, sureness);
        let is_unsure = |&value: &f64| match sureness {
            Sureness::Distance => threshold > 0.0 && value > threshold,
            Sureness::Probability => value < threshold,
        };
        let is_unknown: Vec<bool> = found.sureness.iter().map(is_unsure).collect();
        if given.flag(SCALE) {
            scale(&mut found.sureness);
        }
        let name =
            |(&at, &is_unknown): (&usize, &bool)| if is_unknown { unknown.to_owned() } else { names[at].clone() };
        let types = found.nearest.iter().zip(&is_unknown).map(name).collect();
        let told = if sureness == Sureness::Distance { "uncertainty" } else { "probability" };
        frame.columns.push((format!("{field}_pred"), Column::Names(types)));
        frame
            .columns
            .push((format!("{field}_{told}"), Column::Numbers(found.sureness.iter().map(|&v| v as f32).collect())));
        if given.flag(DISTANCES) {
            for (name, column) in names.iter().zip(found.all.columns()) {
                frame.columns.push((format!("{field}_{name}"), Column::Numbers(column.to_vec())));
            }
        }
    }
    Ok(Answer::Frame(frame))
}

fn prototypes(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let prototypes = module.prototypes();
    let (names, n_cells, means): (Vec<String>, Vec<f32>, Array2<f32>) = match given.choice(WHAT) {
        UNLABELED => {
            let means = to_array(prototypes.unlabelled());
            ((0..means.nrows()).map(|cluster| cluster.to_string()).collect(), vec![f32::NAN; means.nrows()], means)
        }
        POOLED => {
            let pool = asked.pooled(&contributions::part());
            let (mut names, mut n_cells, mut means) = (vec![], vec![], Vec::<f32>::new());
            for found in pool.iter().flat_map(|pool| of_pool(pool, pool.entries())) {
                let (name, of_type) = found?;
                names.push(name.to_owned());
                n_cells.push(of_type.n_cells as f32);
                means.extend(Vec::<f32>::try_from(of_type.mean()).expect("means are numbers"));
            }
            let shape = (names.len(), module.config().latent_dim);
            (names, n_cells, Array2::from_shape_vec(shape, means).expect("each has as many dimensions"))
        }
        _ => {
            let present: Vec<usize> =
                prototypes.are_present().iter().enumerate().filter(|(_, is)| **is).map(|(code, _)| code).collect();
            let all_cells = prototypes.n_cells();
            let names = present.iter().map(|&code| module.levels().types()[code].clone()).collect();
            let n_cells = present.iter().map(|&code| all_cells[code] as f32).collect();
            (names, n_cells, to_array(prototypes.mean()).select(Axis(0), &present))
        }
    };
    let rows = (0..names.len()).map(|row| row.to_string()).collect();
    let mut frame = Frame::of_rows("prototype", rows);
    frame.columns.push(("cell_type".to_owned(), Column::Names(names)));
    frame.columns.push(("n_cells".to_owned(), Column::Numbers(n_cells)));
    if means.nrows() > 0 {
        for (field, candidates) in candidates(module, asked, given)? {
            let found = classify(means.view(), &candidates.means, EUCLIDEAN, Sureness::Distance);
            let types = found.nearest.iter().map(|&at| candidates.names[at].clone()).collect();
            frame.columns.push((format!("{field}_pred"), Column::Names(types)));
            let distances = found.sureness.iter().map(|&value| value as f32).collect();
            frame.columns.push((format!("{field}_uncertainty"), Column::Numbers(distances)));
        }
    }
    Ok(Answer::Frame(frame.with_values((0..means.ncols()).map(|i| format!("z{i}")).collect(), means)))
}

fn sample_embeddings(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Answer {
    let tables: Vec<Array2<f32>> = module.embeddings().tables().iter().map(to_array).collect();
    let conditions = asked.conditions();
    let first_cells: Vec<Option<usize>> = (0..conditions.len() as i64)
        .map(|code| asked.dataset().conditions.iter().position(|&of_cell| of_cell == code))
        .collect();
    // With several keys a condition is what its cells' keys make together; one that no cell has cannot be put together here.
    let row = |code: usize| -> Option<Vec<f32>> {
        match tables.as_slice() {
            [one] => (code < one.nrows()).then(|| one.row(code).to_vec()),
            several => {
                let cell = first_cells[code]?;
                let of_key = |(table, codes): (&Array2<f32>, &Vec<i64>)| table.row(codes[cell] as usize).to_vec();
                Some(several.iter().zip(&asked.dataset().axes).flat_map(of_key).collect())
            }
        }
    };
    let known: Vec<(usize, Vec<f32>)> = (0..conditions.len()).filter_map(|code| Some((code, row(code)?))).collect();
    let n_numbers = module.embeddings().n_numbers();
    let flat: Vec<f32> = known.iter().flat_map(|(_, row)| row.iter().copied()).collect();
    let values = Array2::from_shape_vec((known.len(), n_numbers), flat).expect("each has as many numbers");
    let mut frame = Frame::of_rows("sample", known.iter().map(|(code, _)| conditions[*code].to_string()).collect());
    let text = |of: &dyn Fn(usize) -> String| Column::Names(known.iter().map(|(code, _)| of(*code)).collect());
    frame.columns.push(("owner".to_owned(), text(&|code| conditions[code].owner().to_string())));
    frame.columns.push(("dataset".to_owned(), text(&|code| conditions[code].dataset().to_string())));
    frame.columns.push(("batch".to_owned(), text(&|code| conditions[code].batch().to_owned())));
    for (name, of_cell) in given.columns(COVARIATES) {
        let of = |code: usize| first_cells[code].map_or_else(String::new, |cell| of_cell[cell].clone());
        frame.columns.push((name.clone(), text(&of)));
    }
    if let Some(places) = principal(&values) {
        frame.places.push(("X_pca".to_owned(), places));
    }
    Answer::Frame(frame.with_values((0..n_numbers).map(|i| format!("e{i}")).collect(), values))
}

/// The first two principal components of rows; none of fewer than three rows or two numbers. Upstream's kernel PCA with a linear kernel is this.
fn principal(rows: &Array2<f32>) -> Option<Array2<f32>> {
    if rows.nrows() < 3 || rows.ncols() < 2 {
        return None;
    }
    let rows = of_rows(rows.view()).to_kind(tch::Kind::Double);
    let centred = &rows - rows.mean_dim([0_i64].as_slice(), true, tch::Kind::Double);
    let (u, sizes, _) = centred.svd(true, true);
    let places = (u * sizes).narrow(1, 0, 2);
    // The sign of a component is nobody's: the largest entry is made positive.
    let largest = places.abs().argmax(0, true);
    let places = &places * places.gather(0, &largest, false).sign();
    Some(to_array(&places.to_kind(tch::Kind::Float)))
}

/// The clusters of the cells at the resolution asked for.
fn clustered(
    module: &ScpoliModule,
    asked: &Asked<'_>,
    given: &Given,
    latent: &Array2<f32>,
) -> Result<super::prototypes::Clusters> {
    let resolution = given.number(RESOLUTION);
    if !(resolution > 0.0 && resolution.is_finite()) {
        let (found, expected) = (resolution.to_string(), "a number above 0".to_owned());
        return Err(Error::Argument { name: RESOLUTION, found, expected });
    }
    let config = super::ScpoliConfig {
        clustering: super::Clustering::Leiden,
        clustering_res: resolution,
        ..module.config().clone()
    };
    let seed = asked.seeds().of("clusters", 0);
    cluster(latent.view(), &config, u64::from_le_bytes(seed[..8].try_into().expect("a seed has 32 bytes")))
}

fn clusters(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let latent = latent(module, asked, given)?;
    let found = clustered(module, asked, given, &latent)?;
    let mut frame = Frame::of_cells();
    let away = latent
        .rows()
        .into_iter()
        .zip(&found.of_cell)
        .map(|(z, &cluster)| (&z - &found.means.row(cluster as usize)).mapv(|d| d * d).sum().sqrt());
    let away = away.collect();
    frame.columns.push(("cluster".to_owned(), Column::Names(found.of_cell.iter().map(u32::to_string).collect())));
    frame.columns.push(("cluster_distance".to_owned(), Column::Numbers(away)));
    Ok(Answer::Frame(frame))
}

fn add_cell_type(module: &ScpoliModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let refuse =
        |name, found: String, expected: &str| Err(Error::Argument { name, found, expected: expected.to_owned() });
    let [name] = given.names(NAME) else {
        return refuse(NAME, format!("{} names", given.names(NAME).len()), "one");
    };
    let candidates = candidates(module, asked, given)?;
    let known = &candidates[0].1;
    if known.names.contains(name) {
        return refuse(NAME, format!("`{name}`"), "a type without a prototype");
    }
    let latent = latent(module, asked, given)?;
    let found = clustered(module, asked, given, &latent)?;
    if given.names(CLUSTERS).is_empty() {
        return refuse(CLUSTERS, "nothing".to_owned(), "one cluster or several");
    }
    let position = |text: &String| text.parse().ok().filter(|&at: &usize| at < found.means.nrows());
    let mut members = Vec::new();
    for text in given.names(CLUSTERS) {
        match position(text) {
            Some(at) => members.push(at),
            None => return refuse(CLUSTERS, format!("`{text}`"), &format!("numbers below {}", found.means.nrows())),
        }
    }
    let rows: Vec<_> = members.iter().map(|&at| found.means.slice(s![at..=at, ..])).collect();
    let own = ndarray::concatenate(Axis(0), &rows).expect("all have the same columns");
    let new = NewType::of_clusters(&of_rows(own.view()), &known.means, latent.view());
    let file = given.file(PROTOTYPES).map(|bytes| PrototypeFile::read(bytes, module)).transpose()?;
    let file = file.unwrap_or_else(|| PrototypeFile::new(module)).with(name, &new);
    Ok(Answer::File(file.to_bytes()))
}

const WHAT: &str = "what";
const LABELED: &str = "labeled";
const UNLABELED: &str = "unlabeled";
const POOLED: &str = "pooled";
const THRESHOLD: &str = "threshold";
const UNKNOWN: &str = "unknown";
const PROBABILITY: &str = "probability";
const SCALE: &str = "scale";
const P: &str = "p";
const DISTANCES: &str = "distances";
const SAMPLE: &str = "sample";
const PROTOTYPES: &str = "prototypes";
const COVARIATES: &str = "covariates";
const NAME: &str = "name";
const CLUSTERS: &str = "clusters";
const RESOLUTION: &str = "resolution";

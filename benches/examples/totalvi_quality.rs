//! totalVI on the real CITE-seq pair: `totalvi_quality <folder of cite_pbmc5k.h5ad> <new folder>`.
//!
//! Trains, maps and imputes with seeds 0 to 7, and leaves files that `benches/peers/totalvi_quality.py score` compares with
//! scvi-tools; the questions and the epochs are explained there.

use std::{collections::BTreeMap, env, error::Error, fmt::Write as _, fs, path::Path};

use archipelago_anndata::{AnnData, Csr};
use archipelago_common::{ConditionKey, progress::Silent, task::TrainSpec};
use archipelago_models::{
    Categorical, CellConditions, Cells, Device, NoCheckpoints, Query, Reference, Training,
    data::Features,
    model::{Config, Configured as _, Model as _},
    results::{Answer, Asked, Given, Value},
    surgery,
    train::FurtherOptions,
    train_reference,
    zoo::totalvi::{PROTEINS, Totalvi, TotalviConfig},
};
use ndarray::Array2;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One experiment: counts, proteins by name, the batch.
struct Experiment {
    batch: &'static str,
    genes: Vec<String>,
    counts: Csr,
    proteins: Features,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [data, out] = arguments.as_slice() else {
        return Err("usage: totalvi_quality <folder of cite_pbmc5k.h5ad> <new folder>".into());
    };
    let (data, out) = (Path::new(data), Path::new(out));
    fs::create_dir_all(out)?;
    let reference = read(data, "cite_pbmc5k.h5ad", "reference")?;
    let query = read(data, "cite_pbmc10k.h5ad", "query")?;
    for seed in 0..8 {
        joint(&reference, &query, seed, out)?;
        mapped(&reference, &query, seed, out)?;
        pair(&reference, &query, seed, out)?;
    }
    Ok(())
}

fn read(folder: &Path, file: &str, batch: &'static str) -> Outcome<Experiment> {
    let adata = AnnData::read(folder.join(file))?;
    let table = adata.obsm("protein_expression")?.to_table("protein_expression")?;
    let names = table.columns.ok_or("the proteins have no names")?;
    let proteins = Features::new(names, Csr::from_dense(table.n_rows, table.n_cols, &table.values)?)?;
    let counts = adata.matrix(None)?.to_csr()?;
    Ok(Experiment { batch, genes: adata.var_names().to_vec(), counts, proteins })
}

/// Both batches trained together, the proteins of the query hidden.
fn joint(reference: &Experiment, query: &Experiment, seed: u64, out: &Path) -> Outcome<()> {
    let shared = shared(reference, query);
    let counts = Csr::vstack(reference.genes.len(), [reference.counts.clone(), query.counts.clone()])?;
    let measured = reference.proteins.aligned(PROTEINS, &shared)?;
    let hidden = Csr::zeros(query.counts.n_rows(), shared.len());
    let all = Features::new(shared.clone(), Csr::vstack(shared.len(), [measured, hidden])?)?;
    let batches = [vec![reference.batch; reference.counts.n_rows()], vec![query.batch; query.counts.n_rows()]].concat();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&batches), key)?;
    let cells = Cells::new(&counts).with(PROTEINS, all);
    let model = train(&cells, &conditions, &reference.genes, &Config::new(), seed)?;
    let of_query = Cells::new(&query.counts);
    let imputed = imputed(&model, &of_query, query, seed)?;
    write_table(&out.join(format!("joint_seed{seed}_imputed.csv")), &shared, &imputed, None)?;
    let latent = model.latent(&cells, &conditions, Device::Cpu)?.mean;
    write_table(&out.join(format!("joint_seed{seed}_latent.csv")), &dimensions(&latent), &latent, Some(&batches))
}

/// A reference of the first batch, onto which the second is mapped without proteins.
fn mapped(reference: &Experiment, query: &Experiment, seed: u64, out: &Path) -> Outcome<()> {
    let shared = shared(reference, query);
    let proteins = Features::new(shared.clone(), reference.proteins.aligned(PROTEINS, &shared)?)?;
    let model = alone(reference, proteins, seed)?;
    let cells = Cells::new(&query.counts);
    let grown = map(&model, query, cells.clone(), seed)?;
    let imputed = imputed(&grown, &cells, query, seed)?;
    write_table(&out.join(format!("surgery_seed{seed}_imputed.csv")), &shared, &imputed, None)
}

/// A reference with all its proteins, onto which the query is mapped with those that it has.
fn pair(reference: &Experiment, query: &Experiment, seed: u64, out: &Path) -> Outcome<()> {
    let model = alone(reference, reference.proteins.clone(), seed)?;
    let grown = map(&model, query, with_proteins(query), seed)?;
    let of = |experiment: &Experiment| -> Outcome<_> {
        let conditions = CellConditions::single(key(experiment.batch)?, experiment.counts.n_rows());
        let latent = grown.latent(&with_proteins(experiment), &conditions, Device::Cpu)?.mean;
        Ok((latent, grown.evaluate(&with_proteins(experiment), &conditions, seed, Device::Cpu)?.elbo()))
    };
    let ((first, reference_elbo), (second, query_elbo)) = (of(reference)?, of(query)?);
    let latent = ndarray::concatenate(ndarray::Axis(0), &[first.view(), second.view()])?;
    let batches = [vec![reference.batch; first.nrows()], vec![query.batch; second.nrows()]].concat();
    write_table(&out.join(format!("pair_seed{seed}_latent.csv")), &dimensions(&latent), &latent, Some(&batches))?;
    let fit = BTreeMap::from([("reference", reference_elbo), ("query", query_elbo)]);
    Ok(fs::write(out.join(format!("pair_seed{seed}_fit.json")), serde_json::to_string(&fit)?)?)
}

fn with_proteins(experiment: &Experiment) -> Cells<'_> {
    Cells::new(&experiment.counts).with(PROTEINS, experiment.proteins.clone())
}

/// A reference of one batch, with the options of the field's surgery tutorial.
fn alone(experiment: &Experiment, proteins: Features, seed: u64) -> Outcome<Reference> {
    let conditions = CellConditions::single(key(experiment.batch)?, experiment.counts.n_rows());
    let cells = Cells::new(&experiment.counts).with(PROTEINS, proteins);
    train(&cells, &conditions, &experiment.genes, &TotalviConfig::for_surgery().options(), seed)
}

fn train(
    cells: &Cells<'_>,
    conditions: &CellConditions,
    genes: &[String],
    options: &Config,
    seed: u64,
) -> Outcome<Reference> {
    let spec = TrainSpec { epochs: Some(EPOCHS), seed, ..TrainSpec::default() };
    let training = Training {
        model: &Totalvi,
        options,
        genes,
        cells,
        conditions,
        batch_key: "batch",
        spec: &spec,
        further: &FurtherOptions::default(),
        compute: Device::Cpu.into(),
    };
    Ok(train_reference(&training, &mut Silent, &mut NoCheckpoints)?.reference)
}

fn map(reference: &Reference, query: &Experiment, cells: Cells<'_>, seed: u64) -> Outcome<Reference> {
    let spec = TrainSpec { epochs: Some(SURGERY_EPOCHS), seed, ..TrainSpec::default() };
    let query = Query { key: key(query.batch)?, cells };
    let mapped = surgery(&reference.base, &query, &spec, Device::Cpu, &mut Silent, &mut NoCheckpoints)?;
    Ok(reference.with(query.key, mapped.columns)?)
}

/// Foreground of the query's proteins as the stained conditions would have measured it.
fn imputed(model: &Reference, cells: &Cells<'_>, query: &Experiment, seed: u64) -> Outcome<Array2<f32>> {
    let conditions = CellConditions::single(key(query.batch)?, query.counts.n_rows());
    let asked = Asked::new(model, cells, &conditions, seed, Device::Cpu)?;
    let [question] = Totalvi.questions() else { return Err("totalVI has one question".into()) };
    let given =
        Given::defaults(question.arguments).with("impute", Value::Flag(true)).with("n_samples", Value::Count(N_DRAWS));
    match asked.answer(question.name, &given)? {
        Answer::Cells { values, .. } => Ok(values),
        _ => Err("the answer is not about cells".into()),
    }
}

/// Proteins of both, in the reference's order.
fn shared(reference: &Experiment, query: &Experiment) -> Vec<String> {
    let in_query = |name: &&String| query.proteins.names().contains(name);
    reference.proteins.names().iter().filter(in_query).cloned().collect()
}

fn key(batch: &str) -> archipelago_common::Result<ConditionKey> {
    format!("peers/cite/{batch}").parse()
}

fn dimensions(latent: &Array2<f32>) -> Vec<String> {
    (0..latent.ncols()).map(|dimension| format!("z{dimension}")).collect()
}

fn write_table(path: &Path, columns: &[String], values: &Array2<f32>, batches: Option<&[&str]>) -> Outcome<()> {
    let mut text = format!("cell,{}", columns.join(","));
    text += if batches.is_some() { ",batch\n" } else { "\n" };
    for (cell, row) in values.rows().into_iter().enumerate() {
        write!(text, "{cell}")?;
        row.iter().try_for_each(|value| write!(text, ",{value}"))?;
        if let Some(batches) = batches {
            write!(text, ",{}", batches[cell])?;
        }
        text.push('\n');
    }
    Ok(fs::write(path, text)?)
}

const EPOCHS: u32 = 200;
const SURGERY_EPOCHS: u32 = 100;
const N_DRAWS: usize = 25;

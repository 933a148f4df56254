//! Networks of sections by the recipe of the peer's figures: a fifth of the cells of every reference is kept out and mapped, because
//! their places are known; then the query is mapped by all references together.
//!
//! How often a part is met depends on what the parts are: communities of one run are another task than those of the next. So parts can
//! be given as obs columns, the peer's above all; without columns they are the worker's own communities. The same holds for the cells that
//! are kept out: obs column `held_out_<seed>` names them with 1.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use archipelago_analysis::{
    Labels,
    metrics::{Confusion, NmiAverage, nmi},
    space::{spatial_graph, spatial_partitions},
};
use archipelago_anndata::{AnnData, Column, Compression};
use ndarray::{Array2, ArrayView2, Axis};

use crate::{
    cells::{column, distinct},
    comparison::Figures,
    correlation::{neighbour_rank, pairwise, pearson, spearman, upper},
    quality::area_under_curve,
    quality_runs::SeedRun,
};

impl SeedRun<'_> {
    /// Trains and maps, section by section, and judges by true parts and places.
    pub(crate) fn sections(&self) -> Result<Figures> {
        let cells = self.prepare_sections()?;
        let mut figures = Figures::default();
        for section in &cells.references {
            let ensemble = self.learn_sections(&cells, std::slice::from_ref(section))?;
            let held = format!("{section}{HELD_OUT}");
            let mapped = self.map_cells(&ensemble, &cells.file, &[&held])?;
            judge_parts(section, &cells.partitions, &mapped, &mut figures)?;
            judge_distances(&format!("{section}_held_out"), &mapped, &mut figures)?;
        }
        let Some((file, batches)) = &cells.query else { return Ok(figures) };
        let all = self.learn_sections(&cells, &cells.references)?;
        let batches: Vec<&str> = batches.iter().map(String::as_str).collect();
        let mapped = self.map_cells(&all, file, &batches)?;
        figures.insert("query_confidence", mean(&numbers(&mapped, "confidence")?));
        if !mapped.obsm.contains_key(PLACES) {
            return Ok(figures);
        }
        judge_distances("query", &mapped, &mut figures)?;
        let places = places_of(&mapped)?;
        let own = communities(places.view())?;
        for section in &cells.references {
            let mut shared = Vec::new();
            for ((_, parts), partition) in own.iter().zip(&cells.partitions) {
                let found = Labels::from_names(&column(&mapped, &format!("pred_{section}_{partition}"))?);
                shared.push(nmi(parts, found.codes(), NmiAverage::Arithmetic)?);
            }
            figures.insert(&format!("query_{section}_parts_nmi"), mean(&shared));
            let ensemble = self.path(&ensemble_of(std::slice::from_ref(section)));
            judge_distances(
                &format!("query_{section}_alone"),
                &self.map_cells(&ensemble, file, &batches)?,
                &mut figures,
            )?;
        }
        Ok(figures)
    }

    /// Writes normalised cells with a batch each: a section's cells to learn from, those kept out of it, and the query.
    fn prepare_sections(&self) -> Result<Sections> {
        let file = self.normalised(&self.args.data, "normalised.h5ad")?;
        let mut cells = AnnData::read(Path::new(&file))?;
        let n_cells = cells.n_obs();
        let optional = |name: &str, otherwise: &str| match cells.obs.column(name) {
            Ok(_) => column(&cells, name),
            Err(_) => Ok(vec![otherwise.to_owned(); n_cells]),
        };
        let (sections, splits) = (optional("section", "section0")?, optional("split", "reference")?);
        let of = |split: &str| -> Vec<usize> { (0..n_cells).filter(|&cell| splits[cell] == split).collect() };
        let (known, of_query) = (of("reference"), of("query"));
        ensure!(!known.is_empty(), "no cell is of a reference by obs column `split`");
        let references = distinct(&known.iter().map(|&cell| sections[cell].clone()).collect::<Vec<_>>());
        let mut parts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let places = places_of(&cells)?;
        let mut batches = sections.clone();
        let drawn = cells.obs.column(&format!("held_out_{}", self.seed())).ok().and_then(|column| column.to_f64());
        for section in &references {
            let of_section: Vec<usize> = known.iter().copied().filter(|&cell| sections[cell] == *section).collect();
            if self.args.partition_keys.is_empty() {
                for (name, found) in communities(places.select(Axis(0), &of_section).view())? {
                    let column = parts.entry(name).or_insert_with(|| vec![0; n_cells]);
                    of_section.iter().zip(found).for_each(|(&cell, part)| column[cell] = part.into());
                }
            }
            let kept_out = match &drawn {
                Some(drawn) => of_section.iter().copied().filter(|&cell| drawn[cell] == 1.0).collect(),
                None => self.a_fifth(&of_section),
            };
            kept_out.into_iter().for_each(|cell: usize| batches[cell].push_str(HELD_OUT));
        }
        of_query.iter().for_each(|&cell| QUERY.clone_into(&mut batches[cell]));
        let partitions = match self.args.partition_keys.is_empty() {
            true => parts.keys().cloned().collect(),
            false => self.args.partition_keys.clone(),
        };
        for (name, found) in parts {
            cells.obs.insert(name, found)?;
        }
        cells.obs.insert(BATCH, Column::categorical(&batches))?;
        cells.write(Path::new(&file), Compression::Gzip(4))?;
        let query = match &self.args.query_data {
            Some(other) => {
                let other = self.normalised(other, "dissociated.h5ad")?;
                let mut of_query = AnnData::read(Path::new(&other))?;
                of_query.obs.insert(BATCH, Column::categorical(&vec![QUERY; of_query.n_obs()]))?;
                of_query.write(Path::new(&other), Compression::Gzip(4))?;
                Some((other, vec![QUERY.to_owned()]))
            }
            None => (!of_query.is_empty()).then(|| (file.clone(), vec![QUERY.to_owned()])),
        };
        Ok(Sections { file, references, partitions, query })
    }

    /// A fifth of these cells, at random.
    fn a_fifth(&self, cells: &[usize]) -> Vec<usize> {
        let order = self.shuffled(cells.len());
        let n_learnt = (0.8 * order.len() as f64).round() as usize;
        order[n_learnt..].iter().map(|&place| cells[place]).collect()
    }

    /// Cells with a count, scaled to 10,000 and log1p.
    fn normalised(&self, data: &Path, name: &str) -> Result<String> {
        let (out, data) = (self.path(name), data.display().to_string());
        self.plain(&["preprocess", &data, "--min-counts", "1", "--target-sum", "1e4", "--out", &out])?;
        Ok(out)
    }

    /// The networks of sections, learnt from the cells that are not kept out.
    fn learn_sections(&self, cells: &Sections, sections: &[String]) -> Result<String> {
        let (out, seed) = (self.path(&ensemble_of(sections)), self.seed().to_string());
        let (batches, partitions) = (sections.join(","), cells.partitions.join(","));
        let train = ["space", "train", &cells.file, "--batch-key", BATCH, "--batches", &batches, "--out", &out];
        self.plain(&[&train[..], &["--partition-keys", &partitions, "--network-seed", &seed]].concat())?;
        Ok(out)
    }

    fn map_cells(&self, ensemble: &str, file: &str, batches: &[&str]) -> Result<AnnData> {
        let (out, seed) = (self.path("mapped.h5ad"), self.seed().to_string());
        let map = ["space", "map", ensemble, file, "--batch-key", BATCH, "--batches", &batches.join(",")];
        self.plain(&[&map[..], &["--seed", &seed, "--out", &out]].concat())?;
        Ok(AnnData::read(Path::new(&out))?)
    }
}

/// Sections in one file.
struct Sections {
    file: String,
    /// Names of the sections that are learnt.
    references: Vec<String>,
    /// Columns of obs that hold their parts.
    partitions: Vec<String>,
    /// The file of the cells that are mapped by all of them, and the batches there.
    query: Option<(String, Vec<String>)>,
}

/// How often the parts of kept-out cells are met, and how much surer the networks are where they meet them.
fn judge_parts(section: &str, partitions: &[String], mapped: &AnnData, figures: &mut Figures) -> Result<()> {
    for partition in partitions {
        let (truth, found) = (column(mapped, partition)?, column(mapped, &format!("pred_{section}_{partition}"))?);
        let is_right: Vec<bool> = truth.iter().zip(&found).map(|(truth, found)| truth == found).collect();
        let n_right = is_right.iter().filter(|is_right| **is_right).count();
        let confusion = Confusion::new(&Labels::from_names(&truth), &Labels::from_names(&found))?;
        let entropy = numbers(mapped, &format!("ent_{section}_{partition}"))?;
        let sure: Vec<f64> = entropy.iter().map(|entropy| 1.0 - entropy).collect();
        let mut tell = |name: &str, value| figures.insert(&format!("{section}_{partition}_{name}"), value);
        tell("accuracy", n_right as f64 / truth.len().max(1) as f64);
        tell("macro_f1", confusion.macro_f1_of_true_labels().context("there is no cell")?);
        tell("confidence", mean(&sure));
        if let Some(area) = area_under_curve(&sure, &is_right) {
            tell("confidence_auroc", area);
        }
    }
    Ok(())
}

/// How the distances of mapped cells go with true ones, over all pairs, and among the fifty nearest.
fn judge_distances(name: &str, mapped: &AnnData, figures: &mut Figures) -> Result<()> {
    let found = mapped.obsp.get("dist_map").context("the mapped cells have distances")?.to_csr()?.to_dense();
    let found = Array2::from_shape_vec((mapped.n_obs(), mapped.n_obs()), found)?.mapv(f64::from);
    let truth = pairwise(places_of(mapped)?.view());
    let (by_map, by_place) = (upper(&found), upper(&truth));
    figures.insert(&format!("{name}_distances_spearman"), spearman(&by_map, &by_place));
    figures.insert(&format!("{name}_distances_pearson"), pearson(&by_map, &by_place));
    figures.insert(&format!("{name}_neighbour_rank"), neighbour_rank(&found, &truth));
    Ok(())
}

/// The worker's own communities of cells that lie together, with its usual options.
fn communities(places: ArrayView2<'_, f32>) -> Result<Vec<(String, Vec<u32>)>> {
    let found = spatial_partitions(&spatial_graph(places, N_NEIGHBOURS)?, places.nrows(), &RESOLUTIONS, 0)?;
    Ok(RESOLUTIONS.iter().map(|resolution| format!("leiden_{resolution}")).zip(found).collect())
}

fn places_of(cells: &AnnData) -> Result<Array2<f32>> {
    let table = cells.obsm(PLACES)?.to_table(PLACES)?;
    Ok(Array2::from_shape_vec((table.n_rows, table.n_cols), table.values)?)
}

fn numbers(cells: &AnnData, name: &str) -> Result<Vec<f64>> {
    cells.obs.column(name)?.to_f64().with_context(|| format!("obs column `{name}` holds numbers"))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn ensemble_of(sections: &[String]) -> String {
    format!("networks-of-{}", sections.join("-"))
}

/// The column that says which cells are learnt, kept out, or mapped.
const BATCH: &str = "quality_batch";
/// Behind the name of a section whose cells are kept out.
const HELD_OUT: &str = "-held-out";
/// The batch of the query.
const QUERY: &str = "mapped-query";
/// Where cells have their places.
const PLACES: &str = "spatial";
/// The recipe's neighbours of a cell in space, and resolutions.
const N_NEIGHBOURS: usize = 6;
const RESOLUTIONS: [f64; 3] = [0.05, 0.1, 0.5];

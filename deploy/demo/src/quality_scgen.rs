//! scGen by the recipes of its peer's figures: batches removed and a query laid onto the reference, and an answer to a
//! perturbation predicted for each cell type in turn, of which no perturbed cell was seen.

use std::path::Path;

use anyhow::{Context as _, Result};
use archipelago_analysis::{
    CsrView,
    metrics::{Agreement, gene_means, increased_genes},
};
use archipelago_anndata::{AnnData, Csr};

use crate::{
    cells::{column, distinct},
    comparison::Figures,
    quality_runs::SeedRun,
};

/// Layers of the peer's runs.
const HIDDEN: [&str; 2] = ["--hidden-layer-sizes", "256,128"];
/// Counts per cell that expression is scaled to.
const TARGET_SUM: [&str; 2] = ["--target-sum", "10000"];
/// Genes over which predictions are judged beside all of them.
const N_TOP: usize = 100;

impl SeedRun<'_> {
    /// Both sides as they are decoded and encoded again, by the means of the reference's cell types.
    pub(crate) fn scgen(&self) -> Result<Figures> {
        let args = self.args;
        let (data, logged) = (args.data.display().to_string(), self.path("logged.h5ad"));
        self.plain(&[&["preprocess", &data][..], &TARGET_SUM, &["--out", &logged]].concat())?;
        let (reference, mapped) = (self.path("scgen"), self.path("scgen-mapped"));
        let (own, query) = (args.reference.join(","), args.query.join(","));
        let labels = ["--labels-key", &args.labels_key];
        let train = ["train", &logged, "--model", "scgen", "--batches", &own, "--out", &reference];
        let epochs = args.reference_epochs().to_string();
        self.command(&[&train[..], &HIDDEN, &labels, &["--epochs", &epochs]].concat())?;
        self.command(&[&["map", &reference, &logged, "--batches", &query, "--out", &mapped][..], &labels].concat())?;
        let removed = |reference: &str, batches: &str, more: &[&str], out: &str| {
            let asked = ["results", "remove-batch", reference, &logged, "--batches", batches, "--what", "latent"];
            let written = ["--obsm-key", "X_archipelago", "--out", &self.path(out)];
            self.command(&[&asked[..], &labels, more, &written].concat())
        };
        removed(&reference, &own, &[], "scgen-reference.h5ad")?;
        removed(&mapped, &query, &["--onto-reference"], "scgen-query.h5ad")?;
        self.judge_files("scgen-reference.h5ad", "scgen-query.h5ad")
    }

    /// Every cell type in turn: a model that has not seen its stimulated cells says what they would be. Means over the types.
    pub(crate) fn perturbation(&self) -> Result<Figures> {
        let (data, logged) = (self.args.data.display().to_string(), self.path("logged.h5ad"));
        self.plain(&[&["preprocess", &data][..], &TARGET_SUM, &["--out", &logged]].concat())?;
        let cells = Expression::read(Path::new(&logged), self)?;
        let types = distinct(&cells.labels);
        let mut sums: Vec<(&str, f64)> = Vec::new();
        for label in &types {
            for (at, (name, value)) in self.without(label, &types, &cells)?.into_iter().enumerate() {
                match sums.get_mut(at) {
                    Some((_, sum)) => *sum += value,
                    None => sums.push((name, value)),
                }
            }
        }
        Ok(sums.into_iter().map(|(name, sum)| (name.to_owned(), sum / types.len() as f64)).collect())
    }

    /// Figures of one type: predicted as we do and as upstream does, and what takes no model.
    fn without(&self, label: &str, types: &[String], cells: &Expression) -> Result<Vec<(&'static str, f64)>> {
        let [logged, others, own, seen, reference] =
            ["logged.h5ad", "others.h5ad", "own.h5ad", "seen.h5ad", "without"].map(|name| self.path(name));
        let args = self.args;
        let (control, stimulated) = (args.reference.join(","), args.query.join(","));
        let rest: Vec<&str> = types.iter().map(String::as_str).filter(|other| *other != label).collect();
        let of = |column: &str, values: &str| format!("{column}={values}");
        let (of_rest, of_label) = (of(&args.labels_key, &rest.join(",")), of(&args.labels_key, label));
        let of_control = of(&args.batch_key, &control);
        self.plain(&["subset", &logged, "--obs", &of_rest, "--out", &others])?;
        self.plain(&["subset", &logged, "--obs", &of_label, "--obs", &of_control, "--out", &own])?;
        self.plain(&["concat", &others, &own, "--out", &seen])?;
        let train = ["train", &seen, "--model", "scgen", "--labels-key", &args.labels_key, "--out", &reference];
        let epochs = args.reference_epochs().to_string();
        self.command(&[&train[..], &HIDDEN, &["--epochs", &epochs]].concat())?;
        let judge = |predicted: &[f64]| cells.judge(predicted, label, self);
        let predicted = |more: &[&str]| -> Result<Agreement> {
            let out = self.path("predicted.h5ad");
            let asked = ["results", "predict-perturbation", &reference, &seen, "--labels-key", &args.labels_key];
            let sides = ["--control", &control, "--stimulated", &stimulated, "--out", &out];
            self.command(&[&asked[..], &sides, more].concat())?;
            judge(&Expression::read(Path::new(&out), self)?.mean(label, &args.reference)?)
        };
        let unchanged = cells.mean(label, &args.reference)?;
        let mut shifted = unchanged.clone();
        for other in &rest {
            let (before, after) = (cells.mean(other, &args.reference)?, cells.mean(other, &args.query)?);
            let n = rest.len() as f64;
            shifted
                .iter_mut()
                .zip(before.iter().zip(after))
                .for_each(|(sum, (before, after))| *sum += (after - before) / n);
        }
        let ours = predicted(&[])?;
        let upstreams = predicted(&["--all-types", "--sample"])?;
        let (unchanged, shifted) = (judge(&unchanged)?, judge(&shifted)?);
        let r2 = |agreement: Agreement| agreement.r2.context("means do not vary");
        let r2_top = |agreement: Agreement| agreement.r2_top.context("means of the top genes do not vary");
        Ok(vec![
            ("perturbation_r2", r2(ours)?),
            ("perturbation_r2_top100", r2_top(ours)?),
            ("perturbation_all_types_r2", r2(upstreams)?),
            ("perturbation_all_types_r2_top100", r2_top(upstreams)?),
            ("unchanged_r2", r2(unchanged)?),
            ("unchanged_r2_top100", r2_top(unchanged)?),
            ("shift_of_other_types_r2", r2(shifted)?),
            ("shift_of_other_types_r2_top100", r2_top(shifted)?),
        ])
    }
}

/// Expression of cells with their types and batches.
struct Expression {
    values: Csr,
    labels: Vec<String>,
    batches: Vec<String>,
}

impl Expression {
    fn read(file: &Path, run: &SeedRun<'_>) -> Result<Self> {
        let adata = AnnData::read(file)?;
        let (labels, batches) = (column(&adata, &run.args.labels_key)?, column(&adata, &run.args.batch_key)?);
        Ok(Self { values: adata.matrix(None)?.to_csr()?, labels, batches })
    }

    fn of(&self, label: &str, batches: &[String]) -> Csr {
        let is_one = |cell: &usize| self.labels[*cell] == label && batches.contains(&self.batches[*cell]);
        self.values.select_rows(&(0..self.labels.len()).filter(is_one).collect::<Vec<_>>())
    }

    fn mean(&self, label: &str, batches: &[String]) -> Result<Vec<f64>> {
        Ok(gene_means(view(&self.of(label, batches))?))
    }

    /// A prediction beside the stimulated cells of a type.
    fn judge(&self, predicted: &[f64], label: &str, run: &SeedRun<'_>) -> Result<Agreement> {
        let (control, stimulated) = (self.of(label, &run.args.reference), self.of(label, &run.args.query));
        let top = increased_genes(view(&stimulated)?, view(&control)?, N_TOP)?;
        Ok(Agreement::new(predicted, &gene_means(view(&stimulated)?), &top)?)
    }
}

fn view(csr: &Csr) -> Result<CsrView<'_>> {
    Ok(CsrView::new(csr.n_cols(), csr.indptr(), csr.indices(), csr.data())?)
}

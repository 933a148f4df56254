//! Predicted expression beside observed, as means of genes.

use std::{fmt, path::PathBuf};

use archipelago_analysis::{
    metrics::{Agreement, gene_means, increased_genes},
    plot::Means,
};
use archipelago_anndata::{
    AnnData, Csr,
    align::{Duplicates, align},
};
use clap::Args;
use serde::Serialize;

use super::PictureArgs;
use crate::{
    cells::view,
    commands::file::{read, within},
    error::{Error, Result},
    output::Output,
};

/// Mean expression of every gene in two files of cells, a dot for each gene, with R² (squared Pearson correlation).
///
/// For predictions beside what was observed. With control cells it also looks at the genes that rise most from these to the
/// observed ones, by Wilcoxon's rank sum: where most genes do not change, a prediction of no change is right about most.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker plot means predicted.h5ad stimulated.h5ad --control control.h5ad --out means.svg")]
pub(super) struct MeansArgs {
    /// The h5ad file with predicted expression in X.
    predicted: PathBuf,
    /// The h5ad file with observed expression in X.
    observed: PathBuf,
    /// An h5ad file with control cells, to find the genes that rise most.
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,
    /// How many of these genes.
    #[arg(long, default_value_t = 100)]
    n_top: usize,
    #[command(flatten)]
    picture: PictureArgs,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_genes: usize,
    r2: Option<f64>,
    /// Over the genes that rise most.
    r2_top: Option<f64>,
    n_top: usize,
    mse: f64,
}

pub(super) fn means(args: &MeansArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let observed = read(&args.observed, output)?;
    let genes = observed.var_names();
    let of_file = |path: &PathBuf| {
        let cells = read(path, output)?;
        aligned(&cells, genes).map_err(|error| within(path, error))
    };
    let (predicted, own) = (of_file(&args.predicted)?, observed.matrix(None)?.to_csr()?);
    let top = match &args.control {
        Some(control) => increased_genes(view(&own)?, view(&of_file(control)?)?, args.n_top)?,
        None => Vec::new(),
    };
    let (across, upwards) = (gene_means(view(&predicted)?), gene_means(view(&own)?));
    let Agreement { r2, r2_top, mse } = Agreement::new(&across, &upwards, &top)?;
    let (n_genes, n_top) = (genes.len(), top.len());
    let summary = Summary { out: args.picture.out.clone(), n_genes, r2, r2_top, n_top, mse };
    let named: Vec<(usize, String)> = top.iter().take(N_NAMED).map(|&gene| (gene, genes[gene].clone())).collect();
    let picture = Means {
        title: "Mean expression",
        subtitle: &summary.line(),
        sides: ["predicted", "observed"],
        across: &across,
        upwards: &upwards,
        marked: &top,
        named: &named,
    };
    args.picture.draw(&[picture.panel(&args.picture.theme())?], output)?;
    output.show(&summary);
    Ok(())
}

/// Expression of these genes, all of which the cells must have.
fn aligned(cells: &AnnData, genes: &[String]) -> Result<Csr> {
    let alignment = align(cells.var_names(), genes, Duplicates::Refuse)?;
    match alignment.missing.first() {
        Some(gene) => Err(Error::NoGene { gene: gene.clone(), n_missing: alignment.missing.len() }),
        None => Ok(alignment.apply(&cells.matrix(None)?.to_csr()?)?),
    }
}

impl Summary {
    fn line(&self) -> String {
        let shown = |r2: Option<f64>| r2.map_or("none".to_owned(), |r2| format!("{r2:.3}"));
        let all = format!("R² {} over {} genes", shown(self.r2), self.n_genes);
        if self.n_top == 0 {
            all
        } else {
            format!("{all}, {} over the {} that rise most", shown(self.r2_top), self.n_top)
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "picture     {}", self.out.display())?;
        writeln!(f, "agreement   {}", self.line())?;
        write!(f, "error       {:.4} (mean square)", self.mse)
    }
}

/// Genes that are written out.
const N_NAMED: usize = 8;

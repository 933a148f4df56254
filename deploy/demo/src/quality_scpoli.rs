//! scPoli by the recipes of its peer's figures: a query whose types are hidden, one whose every second cell is labelled, and a reference
//! that lacks a type.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use archipelago_analysis::{Labels, metrics::Confusion};
use archipelago_anndata::{AnnData, Column, Compression};
use clap::ValueEnum;
use ndarray::Axis;

use crate::{
    cells::{Embedding, column},
    comparison::Figures,
    quality::{self, area_under_curve},
    quality_runs::{SeedRun, mapped_file, reference_file},
};

/// Which types are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Variant {
    /// The reference's; the query's are hidden and predicted.
    #[default]
    Unlabelled,
    /// Those of every second cell of the query, too; the others' are predicted. By upstream's surgery, in which alone labelled cells of a
    /// query are drawn to prototypes.
    Half,
    /// The reference's, which lacks one (`--unseen`): its cells are to be told by their uncertainty, and get a prototype made of those
    /// clusters of the query of which they are the most.
    Unseen,
}

impl Variant {
    /// The model's name with the variant's, as in the table; the peer's figures are found by it.
    pub(crate) fn of_model(self) -> &'static str {
        match self {
            Self::Unlabelled => "scpoli",
            Self::Half => "scpoli-half",
            Self::Unseen => "scpoli-unseen",
        }
    }
}

/// What both sides are trained by.
struct Sides<'a> {
    reference: &'a Path,
    query: &'a Path,
    of_query: &'a [&'a str],
}

impl SeedRun<'_> {
    /// The variant that was asked for.
    pub(crate) fn scpoli(&self) -> Result<Figures> {
        let (args, data) = (self.args, self.args.data.as_path());
        let hidden_types = ["--surgery", &args.surgery, "--ignore-labels"];
        let hidden = Sides { reference: data, query: data, of_query: &hidden_types };
        match args.variant {
            Variant::Unlabelled => {
                let mut figures = self.scpoli_of(&hidden)?;
                self.classified(&[])?.judge(None, &mut figures)?;
                Ok(figures)
            }
            Variant::Half => {
                let labelled = self.path("half.h5ad");
                self.label_every_second(&labelled)?;
                let of_query = ["--labels-key", GIVEN, "--surgery", "upstream", "--eta", QUERY_ETA];
                let mut figures =
                    self.scpoli_of(&Sides { query: Path::new(&labelled), of_query: &of_query, ..hidden })?;
                self.transfer_to_others(&mut figures)?;
                self.classified(&[])?.select(is_other).judge(None, &mut figures)?;
                Ok(figures)
            }
            Variant::Unseen => {
                let unseen =
                    args.unseen.as_deref().context("which type the reference lacks is not said: --unseen TYPE")?;
                let known = self.path("known.h5ad");
                let left_out = format!("{}={unseen}", args.labels_key);
                self.plain(&["subset", &data.display().to_string(), "--not-obs", &left_out, "--out", &known])?;
                let mut figures = self.scpoli_of(&Sides { reference: Path::new(&known), ..hidden })?;
                self.classified(&[])?.judge(Some(unseen), &mut figures)?;
                self.find_again(unseen, &mut figures)?;
                Ok(figures)
            }
        }
    }

    /// A reference and the query mapped onto it, and where their cells lie.
    fn scpoli_of(&self, sides: &Sides<'_>) -> Result<Figures> {
        let (epochs, of_query) = (self.args.reference_epochs(), self.args.surgery_epochs());
        let rise = |epochs: u32| ["--n-epochs-kl-warmup".to_owned(), (2 * epochs).to_string()];
        let (own_rise, query_rise, pretraining) = (rise(epochs), rise(of_query), (epochs * 4 / 5).to_string());
        let own = ["--model", MODEL, "--labels-key", &self.args.labels_key, "--pretraining-epochs", &pretraining];
        let fixed = ["--early-stopping-patience", "0", &own_rise[0], &own_rise[1]];
        let trained = self.train_on(sides.reference, MODEL, &[&own[..], &fixed].concat(), epochs)?;
        let words = [sides.of_query, &[&query_rise[0], &query_rise[1]]].concat();
        let mapped = self.map_from(sides.query, MODEL, &words, of_query)?;
        self.judge_with_fit_of(sides.reference, MODEL, &trained, &mapped)
    }

    /// Writes the query's cells with a column that has the types of every second one.
    fn label_every_second(&self, out: &str) -> Result<()> {
        let args = self.args;
        let batches = format!("{}={}", args.batch_key, args.query.join(","));
        self.plain(&["subset", &args.data.display().to_string(), "--obs", &batches, "--out", out])?;
        let mut cells = AnnData::read(out)?;
        let types = column(&cells, &args.labels_key)?.into_iter().enumerate();
        let given: Vec<String> =
            types.map(|(cell, own)| if is_other(cell) { UNKNOWN.to_owned() } else { own }).collect();
        cells.obs.insert(GIVEN, Column::categorical(&given))?;
        Ok(cells.write(out, Compression::None)?)
    }

    /// Transfer from nearest neighbours as it is for the cells that were not labelled, in place of all.
    fn transfer_to_others(&self, figures: &mut Figures) -> Result<()> {
        let others = |mut embedding: Embedding| {
            let rows: Vec<usize> = (0..embedding.labels.len()).filter(|&cell| is_other(cell)).collect();
            embedding.latent = embedding.latent.select(Axis(0), &rows);
            embedding.labels = rows.iter().map(|&row| embedding.labels[row].clone()).collect();
            embedding.batches = rows.iter().map(|&row| embedding.batches[row].clone()).collect();
            embedding
        };
        let (reference, query) = self.embeddings(&reference_file(MODEL), &mapped_file(MODEL))?;
        let judged = quality::judge(&reference, &others(query), 0)?;
        for (name, figure) in [
            ("knn_accuracy", judged.knn_accuracy),
            ("macro_f1", judged.macro_f1),
            ("balanced_accuracy", judged.balanced_accuracy),
        ] {
            figures.insert(name, figure.context("a type has no cell to be judged by")?);
        }
        Ok(())
    }

    /// How well cells of a type that the reference lacks are told by their uncertainty, and how well its prototype names them then: it is
    /// made of those clusters of the query of which they are the most.
    fn find_again(&self, unseen: &str, figures: &mut Figures) -> Result<()> {
        let before = self.classified(&[])?;
        let is_new: Vec<bool> = before.truth.iter().map(|own| own == unseen).collect();
        if let Some(area) = area_under_curve(&before.uncertainty, &is_new) {
            figures.insert("new_type_auroc", area);
        }
        let (clusters, prototype) = (self.path("clusters.h5ad"), self.path("prototype.safetensors"));
        self.of_query(&["clusters"], &["--out", &clusters])?;
        let cells = AnnData::read(&clusters)?;
        let found = column(&cells, "cluster")?;
        let chosen = mostly(&found, &is_new);
        if chosen.is_empty() {
            return Ok(());
        }
        let made = ["--name", unseen, "--clusters", &chosen.join(","), "--out", &prototype];
        self.of_query(&["add-cell-type"], &made)?;
        let after = self.classified(&["--prototypes", &prototype])?;
        let share = |of: usize, n: usize| of as f64 / n as f64;
        let is_named: Vec<bool> = after.found.iter().map(|found| found == unseen).collect();
        let count = |is: &[bool]| is.iter().filter(|is| **is).count();
        let both = is_new.iter().zip(&is_named).filter(|(new, named)| **new && **named).count();
        let right = after.truth.iter().zip(&after.found).filter(|(own, found)| own == found).count();
        figures.insert("new_type_accuracy", share(right, after.truth.len()));
        figures.insert("new_type_recall", share(both, count(&is_new)));
        if count(&is_named) > 0 {
            figures.insert("new_type_precision", share(both, count(&is_named)));
        }
        Ok(())
    }

    /// The query's cells with their types as the prototypes tell them.
    fn classified(&self, more: &[&str]) -> Result<Classified> {
        let out = self.path("scpoli-classified.h5ad");
        self.of_query(&["classify"], &[more, &["--out", &out]].concat())?;
        let cells = AnnData::read(&out)?;
        let uncertainty = cells.obs.column("labels_uncertainty")?.to_f64().context("uncertainties are numbers")?;
        Ok(Classified {
            truth: column(&cells, &self.args.labels_key)?,
            found: column(&cells, "labels_pred")?,
            uncertainty,
        })
    }

    /// A question about the query's cells.
    fn of_query(&self, question: &[&str], more: &[&str]) -> Result<()> {
        let (mapped, data) = (self.path("scpoli-mapped"), self.args.data.display().to_string());
        let words = [&["results"], question, &[&mapped, &data, "--batches", &self.args.query.join(",")], more];
        self.command(&words.concat())?;
        Ok(())
    }
}

/// Cells with their types, those that were found, and how unsure these are.
struct Classified {
    truth: Vec<String>,
    found: Vec<String>,
    uncertainty: Vec<f64>,
}

impl Classified {
    /// Some of the cells.
    fn select(self, is_one: impl Fn(usize) -> bool) -> Self {
        let rows: Vec<usize> = (0..self.truth.len()).filter(|&cell| is_one(cell)).collect();
        let names = |of: &[String]| rows.iter().map(|&row| of[row].clone()).collect();
        let uncertainty = rows.iter().map(|&row| self.uncertainty[row]).collect();
        Self { truth: names(&self.truth), found: names(&self.found), uncertainty }
    }

    /// Accuracy over all cells, F1 and recall over those of types that the reference has, and how well the uncertainty tells wrong types.
    fn judge(self, unseen: Option<&str>, figures: &mut Figures) -> Result<()> {
        let is_wrong: Vec<bool> = self.truth.iter().zip(&self.found).map(|(own, found)| own != found).collect();
        if let Some(area) = area_under_curve(&self.uncertainty, &is_wrong) {
            figures.insert("uncertainty_auroc", area);
        }
        let is_right = is_wrong.iter().filter(|is_wrong| !**is_wrong).count();
        figures.insert("predict_accuracy", is_right as f64 / is_wrong.len() as f64);
        let is_seen: Vec<bool> = self.truth.iter().map(|own| Some(own.as_str()) != unseen).collect();
        let seen = self.select(|cell| is_seen[cell]);
        let confusion = Confusion::new(&Labels::from_names(&seen.truth), &Labels::from_names(&seen.found))?;
        for (name, figure) in [
            ("predict_macro_f1", confusion.macro_f1_of_true_labels()),
            ("predict_balanced_accuracy", confusion.balanced_accuracy()),
        ] {
            figures.insert(name, figure.context("no cell is of a type that the reference has")?);
        }
        Ok(())
    }
}

/// Clusters of whose cells more than half are such ones.
fn mostly<'a>(clusters: &'a [String], is_one: &[bool]) -> Vec<&'a str> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (cluster, is_one) in clusters.iter().zip(is_one) {
        let (ones, all) = counts.entry(cluster).or_default();
        *ones += usize::from(*is_one);
        *all += 1;
    }
    counts.into_iter().filter(|(_, (ones, all))| 2 * ones > *all).map(|(cluster, _)| cluster).collect()
}

/// Whether a cell of the query is one whose type is not given where every second one's is.
fn is_other(cell: usize) -> bool {
    cell % 2 == 1
}

/// Name in the zoo, and of what is made.
const MODEL: &str = "scpoli";
/// Obs column of the types that the query comes with.
const GIVEN: &str = "given_type";
/// What the model takes for no type.
const UNKNOWN: &str = "Unknown";
/// How strongly prototypes draw the query's cells in the peer's runs, where they draw any.
const QUERY_ETA: &str = "10";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_cluster_is_of_a_type_if_more_than_half_of_it_are() {
        let clusters = names(&["0", "0", "1", "1", "1", "2"]);
        assert_eq!(mostly(&clusters, &[true, false, true, true, false, false]), ["1"]);
    }

    #[test]
    fn cells_of_a_type_that_the_reference_lacks_are_wrong_and_no_type_of_its_own() {
        let cells = Classified {
            truth: names(&["a", "a", "b", "new"]),
            found: names(&["a", "b", "b", "b"]),
            uncertainty: vec![0.1, 0.6, 0.2, 0.9],
        };
        let mut figures = Figures::default();
        cells.judge(Some("new"), &mut figures).unwrap();
        let expected = [
            ("predict_accuracy", 0.5),
            ("predict_balanced_accuracy", 0.75),
            ("predict_macro_f1", 2.0 / 3.0),
            ("uncertainty_auroc", 1.0),
        ];
        assert_eq!(figures, expected.map(|(name, value)| (name.to_owned(), value)).into_iter().collect());
    }
}

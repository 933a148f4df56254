//! Mapping judged on references that scvi-tools trained, beside its own surgery on the same ones: what `surgery_quality.py` has written.

use std::path::Path;

use anyhow::Result;
use archipelago_analysis::{
    Labels,
    metrics::{INTEGRATION_NEIGHBOURS, clisi, ilisi, lisi},
    neighbours::self_knn,
};
use ndarray::{Axis, concatenate};

use crate::{
    cells::Embedding,
    comparison::{Figures, paired::Mapped},
    quality,
    quality_runs::{SeedRun, number, over_cells, read_json},
};

impl SeedRun<'_> {
    /// Imports a seed's reference, maps its query, and judges that beside columns as they start and upstream's surgery.
    pub(crate) fn paired(&self, dir: &Path) -> Result<Mapped> {
        let (own, args) = (dir.join(format!("seed-{}", self.seed())), self.args);
        let (model, query) = (own.join("reference").display().to_string(), own.join("query.h5ad"));
        let (imported, reference) = (self.path("imported"), self.path("reference"));
        let mut words = vec!["import", &model, "--out", &imported];
        if let Some(whose) = &args.batch_norm_affine {
            words.extend(["--batch-norm-affine", whose]);
        }
        self.plain(&words)?;
        self.known("aggregate", "imported", (&args.data, &args.reference), "reference")?;
        self.known("latent", "reference", (&args.data, &args.reference), "reference.h5ad")?;
        let epochs = args.surgery_epochs.map(|epochs| epochs.to_string());
        let epochs: Vec<&str> = epochs.iter().flat_map(|epochs| ["--epochs", epochs]).collect();
        let further: Vec<&str> = args.map_with.iter().map(String::as_str).collect();
        let (query, out) = (query.display().to_string(), self.path("mapped"));
        let words = ["map", &reference, &query, "--batches", &args.query.join(","), "--untrained", "--out", &out];
        let mapped = self.command(&[&words[..], &epochs, &further].concat())?;
        let upstream = read_json(&own.join("upstream.json"))?;
        let judge = |file: &Path, key: &str| {
            let read = |file: &Path, key: &str| Embedding::read(file, key, &args.batch_key, &args.labels_key);
            self.figures(&read(self.path("reference.h5ad").as_ref(), POSITIONS)?, &read(file, key)?)
        };
        let placed = self.path("mapped/mapped.h5ad");
        let mut ours = judge(placed.as_ref(), POSITIONS)?;
        let untrained = judge(placed.as_ref(), UNTRAINED)?;
        let mut theirs = judge(&own.join("upstream.h5ad"), POSITIONS)?;
        ours.insert("elbo_query", over_cells(&mapped, "elbo")?);
        ours.insert("reconstruction_query", over_cells(&mapped, "reconstruction")?);
        theirs.insert("elbo_query", number(&upstream, "elbo_query")?);
        theirs.insert("reconstruction_query", number(&upstream, "reconstruction_query")?);
        Ok(Mapped { ours, upstream: theirs, untrained })
    }

    /// What all mappings are judged by, and how query and reference mix.
    fn figures(&self, reference: &Embedding, query: &Embedding) -> Result<Figures> {
        let mut figures = self.judged(quality::judge(reference, query, 0)?)?;
        let latent = concatenate(Axis(0), &[reference.latent.view(), query.latent.view()])?;
        let neighbours = self_knn(latent.view(), LISI_NEIGHBOURS)?;
        let (n, nearest) = (reference.latent.nrows(), neighbours.nearest(INTEGRATION_NEIGHBOURS));
        let of_reference = |cell| nearest.of(cell).0.iter().filter(|&&neighbour| (neighbour as usize) < n).count();
        let n_of_reference: usize = (n..latent.nrows()).map(of_reference).sum();
        let n_all = query.latent.nrows() * INTEGRATION_NEIGHBOURS;
        figures.insert("reference_share", n_of_reference as f64 / n_all as f64);
        let names = |of: &dyn Fn(&Embedding) -> Vec<String>| Labels::from_names(&[of(reference), of(query)].concat());
        let (batches, labels) = (names(&|cells| cells.batches.clone()), names(&|cells| cells.labels.clone()));
        let index = |groups: &Labels| lisi(&neighbours, groups, LISI_NEIGHBOURS as f64 / 3.0);
        let indices = [("ilisi", ilisi(&index(&batches)?, &batches)), ("clisi", clisi(&index(&labels)?, &labels))];
        for (name, index) in indices {
            if let Some(index) = index {
                figures.insert(name, index);
            }
        }
        Ok(figures)
    }
}

/// Where positions are.
const POSITIONS: &str = "X_archipelago";
/// Where positions before training are.
const UNTRAINED: &str = "X_archipelago_untrained";
/// Neighbours by which LISI is measured, as in the field.
const LISI_NEIGHBOURS: usize = 90;

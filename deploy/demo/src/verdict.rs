//! What came of a run: figures, pictures, accounts, the summary and the page.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use archipelago_analysis::{metrics::MappingQuality, plot::Theme};
use archipelago_common::reference_dir::ReferenceDir;
use serde_json::Value;

use crate::{
    cells::{Cells, Embedding, SiteCells},
    page,
    pictures::{Places, Query, SCALE},
    proofs::Exact,
    quality::{self, Quality, Surgery},
    story::{Merged, Story, text},
    summary::{BytesOut, Site, Summary},
};

/// Where the worker puts the latent representation of untrained columns.
const UNTRAINED: &str = "X_archipelago_untrained";

impl Story {
    /// Judges the mapping, draws it, and writes `summary.json`, the pictures and `index.html`.
    pub(crate) fn judge(
        &mut self,
        cells: &Cells,
        merged: &Merged,
        exact: Exact,
        (reference, query): &(Embedding, Embedding),
        local: &[PathBuf],
    ) -> Result<Summary> {
        let seed = self.args.seed;
        let untrained = joined(local, UNTRAINED, cells)?;
        let quality = self.phase("quality of the mapping", |story| {
            let (pca_reference, pca_query) = quality::pca(cells, reference.latent.ncols())?;
            Ok(Quality {
                surgery: story.fit(merged, local, quality::judge(reference, query, seed)?)?,
                untrained: quality::judge(reference, &untrained, seed)?,
                pca: quality::judge(&pca_reference, &pca_query, seed)?,
            })
        })?;
        let pictures = self.phase("pictures", |story| {
            let places = Places::new(reference, (&untrained, query), &cells.sites, seed)?;
            let draw = |which: Query, title: &str, file: &str| -> Result<String> {
                std::fs::write(story.args.out.join(file), places.figure(which, title, &Theme::LIGHT)?.png(SCALE)?)?;
                let alt = format!("{title}: cells in the plane, by site and by cell type");
                let caption = format!("{title}. One UMAP of all cells at both places: the reference stands still.");
                places.picture(which, title, &alt, &caption)
            };
            Ok([
                draw(
                    Query::Untrained,
                    "Before surgery, with columns at the mean of the reference's",
                    "umap-untrained.png",
                )?,
                draw(Query::Mapped, "After surgery", "umap.png")?,
            ])
        })?;
        let summary = self.summary(cells, merged, exact, quality)?;
        std::fs::write(self.args.out.join("summary.json"), serde_json::to_vec_pretty(&summary)?)?;
        std::fs::write(self.args.out.join("index.html"), page::page(&summary, &pictures))?;
        Ok(summary)
    }

    /// Adds what the model says of its own fit, from the summaries of `train` and `map`.
    fn fit(&self, merged: &Merged, local: &[PathBuf], mapping: MappingQuality) -> Result<Surgery> {
        let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
        let number =
            |value: &Value, name: &str| value[name].as_f64().with_context(|| format!("a summary has no `{name}`"));
        let elbo_reference = number(&read(&merged.published.join("summary.json"))?, "elbo")?;
        let (mut n_cells, mut elbo, mut reconstruction) = (0.0, 0.0, 0.0);
        for file in local {
            let summary = read(&file.with_file_name("summary.json"))?;
            for metrics in summary["conditions"].as_object().context("a summary has no `conditions`")?.values() {
                let n = number(metrics, "n_cells")?;
                n_cells += n;
                elbo += n * number(metrics, "elbo")?;
                reconstruction += n * number(metrics, "reconstruction")?;
            }
        }
        Ok(Surgery {
            mapping,
            elbo_reference,
            elbo_query: elbo / n_cells,
            reconstruction_query: reconstruction / n_cells,
        })
    }

    fn summary(&mut self, cells: &Cells, merged: &Merged, exact: Exact, quality: Quality) -> Result<Summary> {
        let mut sites = Vec::new();
        for site in &cells.sites {
            sites.push(Site {
                site: site.site.clone(),
                batch: site.batch.clone(),
                n_cells: site.n_cells,
                bytes_out: self.bytes_out(&site.site)?,
                bytes_kept: site.bytes,
            });
        }
        let held = ReferenceDir::open(&merged.merged)?;
        let data = self.args.data.as_ref().and_then(|file| file.file_name());
        Ok(Summary {
            exact,
            quality,
            // Every site's worker ended well, so each was told that its submission is accepted.
            lost: cells.sites.iter().filter(|site| !holds(&held, site)).count(),
            sites,
            lineage: merged.record.lineage.clone(),
            leader_kills: merged.leader_kills,
            data: data.map_or("synthetic cells".to_owned(), |name| name.to_string_lossy().into_owned()),
            seed: self.args.seed,
            reference_epochs: self.args.reference_epochs,
            surgery_epochs: self.args.surgery_epochs,
            seconds: self.started.elapsed().as_secs_f64(),
            phases: self.phases.clone(),
        })
    }

    /// What left a site, by its own audit log, whose chain is verified on the way.
    pub(crate) fn bytes_out(&self, site: &str) -> Result<BytesOut> {
        let log = self.args.out.join("consortium").join(site).join("state/audit.jsonl");
        let report: Value = serde_json::from_str(&self.work(&["audit", text(&log)?, "--format", "json"])?)?;
        let bytes = |kinds: &[&str]| kinds.iter().filter_map(|kind| report["bytes_by_kind"][kind].as_u64()).sum();
        Ok(BytesOut {
            columns: bytes(&["columns"]),
            embeddings: bytes(&["embeddings", "label-means"]),
            metrics: bytes(&["metrics", "progress"]),
            parts: bytes(&["parts"]),
        })
    }
}

fn holds(reference: &ReferenceDir, site: &SiteCells) -> bool {
    site.condition().is_ok_and(|key| reference.version().columns.contains_key(&key))
}

fn joined(files: &[PathBuf], key: &str, cells: &Cells) -> Result<Embedding> {
    let mut all: Option<Embedding> = None;
    for file in files {
        let next = Embedding::read(file, key, &cells.batch_key, &cells.labels_key)?;
        all = Some(match all {
            None => next,
            Some(all) => all.followed_by(next)?,
        });
    }
    all.context("there is no site")
}

//! The page about one mapping: what was mapped onto what, how it went, where the cells lie, what they are called, how good
//! that is, and what left the site.

mod figures;
mod sections;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use archipelago_analysis::{
    Labels,
    graph::connectivities,
    neighbours::{Method, knn_telling, nearest_others},
    page::{Page, thousands},
    transfer::{Transfer, Unknown, weighted},
    umap::{Umap, umap_of_graph},
};
use archipelago_anndata::{AnnData, Join, concat};
use archipelago_common::reference_dir::ReferenceDir;
use ndarray::{Array2, Axis, concatenate};

use crate::{
    audit::AuditTrail,
    cells::{column, embedding, labels},
    colours::MISSING,
    commands::{
        file::{read, within},
        metrics::{Judged, UNINTEGRATED, components, judge},
    },
    error::{Error, Result},
    mapping::{OBS_KEY, OBSM_KEY},
    network,
    output::Output,
    results::{self, History},
};

/// What the page is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The directory that `map` wrote.
    pub mapped: PathBuf,
    /// The reference's cells with their positions, as `latent` wrote them.
    pub reference_cells: Option<PathBuf>,
    /// The obs column of the labels, in either file or in both.
    pub labels_key: Option<String>,
    /// The site's log of what left it.
    pub audit: Option<PathBuf>,
    /// The layer with counts, for the comparison with the data before integration.
    pub layer: Option<String>,
    /// Reference cells that vote for a query cell.
    pub n_neighbors: usize,
    /// Labels of a higher uncertainty are not trusted.
    pub max_uncertainty: f64,
    /// Seed of pictures and clusterings.
    pub seed: u64,
}

/// Everything that the page shows.
struct Findings {
    dir: ReferenceDir,
    card: archipelago_common::BaseCard,
    summary: serde_json::Value,
    history: History,
    query: Cells,
    reference: Option<Cells>,
    /// Places of the query alone.
    query_picture: Array2<f32>,
    /// Places of reference and query together.
    joint_picture: Option<Array2<f32>>,
    transfer: Option<Transferred>,
    judged: Option<Judged>,
    trail: Option<AuditTrail>,
    /// Size of the query's file.
    kept_bytes: u64,
}

/// Cells with what the page needs to know about them.
struct Cells {
    adata: AnnData,
    latent: Array2<f32>,
    batches: Labels,
    /// Labels, where the file has the column; some cells may have none.
    labels: Option<Labels>,
}

/// Labels that the query got.
struct Transferred {
    found: Transfer,
    /// The labels under the threshold.
    kept: Labels,
}

/// Makes the page.
///
/// # Errors  [`Error::Reference`], [`Error::Cells`], [`Error::OtherSpace`], [`Error::AuditBroken`], [`Error::Analysis`]
pub fn page(subject: &Subject, output: &Output) -> Result<String> {
    let findings = Findings::gather(subject, output)?;
    let n_cells = thousands(findings.query.batches.len() as u64);
    let lead = format!(
        "{n_cells} cells of {} were mapped onto a {} reference of {} genes by architecture surgery: the network stayed as it \
         was, and only the columns of the new batches were trained.",
        sections::list(findings.query.batches.names()),
        findings.card.model,
        thousands(findings.card.genes.len() as u64)
    );
    let mut page = Page::new("Query on reference", &lead);
    page.section("What was mapped onto what", &sections::mapping(&findings));
    page.section("Training", &figures::losses(&findings)?);
    page.section("Where the cells lie", &figures::pictures(&findings)?);
    if let Some(transferred) = &findings.transfer {
        page.section("Labels from the reference", &figures::transfer(&findings, transferred, subject)?);
    }
    if let Some(judged) = &findings.judged {
        page.section("How well it fits", &sections::figures(judged));
    }
    page.section("What left the site", &sections::releases(&findings, subject));
    Ok(page.finish())
}

impl Findings {
    fn gather(subject: &Subject, output: &Output) -> Result<Self> {
        let failed = |source| Error::Reference { path: subject.mapped.clone(), source };
        let dir = ReferenceDir::open(&subject.mapped).map_err(failed)?;
        let card = dir.base().map_err(failed)?.card;
        let path = subject.mapped.join("mapped.h5ad");
        let key = subject.labels_key.as_deref().or(card.labels_key.as_deref());
        let query = Cells::read(&path, &card.batch_key, key, output)?;
        let reference = subject.reference_cells.as_deref();
        let reference = reference.map(|path| Cells::read(path, &card.batch_key, key, output)).transpose()?;
        if let Some(key) = &subject.labels_key
            && query.labels.is_none()
            && reference.as_ref().is_none_or(|reference| reference.labels.is_none())
        {
            // An error that lists the columns there are.
            query.adata.obs.column(key).map_err(|source| Error::Cells { path: path.clone(), source })?;
        }
        if let (Some(path), Some(reference)) = (&subject.reference_cells, &reference) {
            let (found, expected) = (reference.latent.ncols(), query.latent.ncols());
            if found != expected {
                return Err(Error::OtherSpace { path: path.clone(), rep: OBSM_KEY.to_owned(), found, expected });
            }
            network::check(OBSM_KEY, &query.adata, (path, &reference.adata), output)?;
        }
        let query_picture = place(&query.latent, "placing the query", subject.seed, output)?;
        let joint = reference.as_ref().map(|reference| reference.joint_latent(&query));
        let joint_picture = joint.as_ref().map(|joint| place(joint, "placing all cells", subject.seed, output));
        let transfer = reference.as_ref().and_then(|reference| reference.transfer(&query, subject, output).transpose());
        let judged = judged(reference.as_ref(), &query, subject, output).transpose();
        Ok(Self {
            summary: results::read_json(&subject.mapped.join("summary.json"))?,
            history: results::read_history(&subject.mapped)?,
            trail: subject.audit.as_deref().map(AuditTrail::read).transpose()?,
            kept_bytes: std::fs::metadata(&path).map_or(0, |metadata| metadata.len()),
            joint_picture: joint_picture.transpose()?,
            transfer: transfer.transpose()?,
            judged: judged.transpose()?,
            dir,
            card,
            query,
            reference,
            query_picture,
        })
    }

    /// Batches and labels of reference and query have one palette.
    fn label_names(&self) -> BTreeSet<String> {
        let of = |cells: &Cells| cells.labels.as_ref().map_or(Vec::new(), |labels| labels.names().to_vec());
        let reference = self.reference.as_ref().map_or(Vec::new(), of);
        reference.into_iter().chain(of(&self.query)).filter(|name| name != MISSING).collect()
    }
}

fn place(latent: &Array2<f32>, what: &str, seed: u64, output: &Output) -> Result<Array2<f32>> {
    let (x, options) = (latent.view(), Umap { seed, ..Umap::default() });
    let k = (options.n_neighbors - 1).min(x.nrows().saturating_sub(1));
    let work = output.work(what);
    let method = Method::for_size(x.nrows(), x.ncols(), seed);
    let neighbours = nearest_others(x, k, method, &|share| work.share(0.2 * share))?;
    Ok(umap_of_graph(x, &connectivities(&neighbours), options, &|share| work.share(0.2 + 0.8 * share))?)
}

/// The figures of all labelled cells in the latent space and before integration; none without labels.
fn judged(reference: Option<&Cells>, query: &Cells, subject: &Subject, output: &Output) -> Result<Option<Judged>> {
    let parts: Vec<&Cells> = reference.into_iter().chain([query]).filter(|cells| cells.labels.is_some()).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let mut adatas = Vec::new();
    let (mut latents, mut names, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for (number, cells) in (1..).zip(parts) {
        let labels = cells.labels.as_ref().expect("cells without labels were left out");
        let rows: Vec<usize> = (0..labels.len()).filter(|&row| labels.name(row) != MISSING).collect();
        let mut adata = cells.adata.select_obs(&rows)?;
        adata.obs.rename_rows(adata.obs_names().iter().map(|cell| format!("{cell}-{number}")).collect())?;
        adatas.push(adata);
        latents.push(cells.latent.select(Axis(0), &rows));
        names.extend(rows.iter().map(|&row| labels.name(row).to_owned()));
        batches.extend(rows.iter().map(|&row| cells.batches.name(row).to_owned()));
    }
    let views: Vec<_> = latents.iter().map(|latent| latent.view()).collect();
    let latent = concatenate(Axis(0), &views).expect("both latents are as wide");
    let before = components(&concat(&adatas, Join::Inner)?, subject.layer.as_deref(), output)?;
    let spaces = [(OBSM_KEY.to_owned(), latent), (UNINTEGRATED.to_owned(), before)];
    judge(&spaces, &Labels::from_names(&names), &Labels::from_names(&batches), subject.seed, output).map(Some)
}

impl Cells {
    fn read(path: &Path, batch_key: &str, labels_key: Option<&str>, output: &Output) -> Result<Self> {
        let adata = read(path, output)?;
        let in_file = |error| within(path, error);
        let latent = embedding(&adata, OBSM_KEY).map_err(in_file)?;
        let batches = match adata.obs.column(batch_key) {
            Ok(_) => column(&adata.obs, batch_key).map_err(in_file)?,
            // The batch may have another name in the query's file; its condition ends in it.
            Err(_) => conditions(&adata).map_err(in_file)?,
        };
        let labels_of = |key| labels(&adata.obs, key, MISSING);
        let labels = labels_key.filter(|key| adata.obs.column(key).is_ok()).map(labels_of).transpose()?;
        Ok(Self { latent, batches: Labels::from_names(&batches), labels, adata })
    }

    fn joint_latent(&self, query: &Self) -> Array2<f32> {
        concatenate(Axis(0), &[self.latent.view(), query.latent.view()]).expect("the widths were compared")
    }

    /// Labels for the query from this reference; none without labels here.
    fn transfer(&self, query: &Self, subject: &Subject, output: &Output) -> Result<Option<Transferred>> {
        let Some(labels) = &self.labels else { return Ok(None) };
        let rows: Vec<usize> = (0..labels.len()).filter(|&row| labels.name(row) != MISSING).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let (known, latent) = (labels.select(&rows), self.latent.select(Axis(0), &rows));
        let work = output.work("transferring labels");
        let k = subject.n_neighbors.min(rows.len());
        let neighbours = knn_telling(query.latent.view(), latent.view(), k, &|share| work.share(share))?;
        let found = weighted(&neighbours, &known)?;
        let kept = Labels::from_names(&found.labels_with(Unknown::MaxUncertainty(subject.max_uncertainty)));
        Ok(Some(Transferred { found, kept }))
    }
}

fn conditions(adata: &AnnData) -> Result<Vec<String>> {
    let keys = column(&adata.obs, OBS_KEY)?;
    Ok(keys.into_iter().map(|key| key.rsplit('/').next().unwrap_or(&key).to_owned()).collect())
}

//! Sites learn their own sections, and one that has dissociated cells maps them by the networks of all; what the run proves of it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use archipelago_analysis::Labels;
use archipelago_analysis::metrics::{NmiAverage, nmi};
use archipelago_anndata::AnnData;
use archipelago_common::{record::ReferenceRecord, reference_dir::ReferenceDir};

use crate::{
    args::Args,
    cells::{self, Cells, SiteCells, column},
    consortium::{Consortium, DATASET, OPERATOR, Terms},
    proofs,
    space_summary::{SpaceProofs, SpaceSummary},
    story::{Leader, Story, added_last, text},
    summary::{Run, Site},
};

/// What this demonstration is called among models.
pub const MODEL: &str = "sagenet";

/// One run of the demonstration.
pub struct SpaceStory {
    story: Story,
}

/// What the consortium came to.
struct Together {
    merged: PathBuf,
    record: ReferenceRecord,
    leader_kills: u32,
}

impl SpaceStory {
    /// Prepares an empty output folder. Of generated sites there is one more, whose cells are mapped.
    pub fn new(args: Args) -> Result<Self> {
        ensure!(
            args.data.is_none() || args.query.len() >= 2,
            "sections want a site that learns one and one that maps: --query a,b"
        );
        let sites = if args.data.is_none() { args.sites + 1 } else { args.sites };
        Ok(Self { story: Story::new(Args { sites, ..args })? })
    }

    /// Runs everything and writes `summary.json`, the pictures and `index.html`.
    pub fn tell(mut self) -> Result<SpaceSummary> {
        let cells = self.story.phase("cells: a file for the reference, one per site", prepare_cells)?;
        let published = self.story.phase("networks of the operator's sections", |story| {
            train(story, &cells.reference, &cells.batch_key, OPERATOR, "reference")
        })?;
        let together = self
            .story
            .phase("consortium: each site learns its section", |story| federate(story, &cells, &published))?;
        let exact = self.story.phase("proofs", |story| prove(story, &cells, &published, &together))?;
        self.judge(&cells, &together, exact)
    }

    fn judge(mut self, cells: &Cells, together: &Together, exact: SpaceProofs) -> Result<SpaceSummary> {
        let out = self.story.args.out.clone();
        let (sections, mapped) = (out.join("sections.png"), out.join("mapped.png"));
        self.story.phase("pictures", |story| {
            let own = story.args.out.join("reference");
            story.work(&["space", "show", text(&own)?, "--picture", text(&sections)?])?;
            story.work(&["space", "show", text(&mapped_file(story, "merged"))?, "--picture", text(&mapped)?])
        })?;
        let adata = AnnData::read(mapped_file(&self.story, "merged"))?;
        let confidence = adata.obs.column("confidence")?.to_f64().context("confidence is a number")?;
        let site = |site: &SiteCells| -> Result<Site> {
            let (name, batch, bytes_out) = (site.site.clone(), site.batch.clone(), self.story.bytes_out(&site.site)?);
            Ok(Site { site: name, batch, n_cells: site.n_cells, bytes_out, bytes_kept: site.bytes })
        };
        let held = ReferenceDir::open(&together.merged)?;
        let owners: BTreeSet<&str> =
            held.version().columns.keys().filter(|key| key.is_part()).map(|key| key.owner().as_str()).collect();
        let lost = learning(cells).iter().filter(|site| !owners.contains(site.site.as_str())).count();
        let summary = SpaceSummary {
            exact,
            n_sections: held.version().columns.keys().filter(|key| key.is_part()).count(),
            confidence: confidence.iter().sum::<f64>() / confidence.len().max(1) as f64,
            agreement: agreement(&adata, &cells.labels_key)?,
            run: Run {
                sites: learning(cells).iter().map(site).collect::<Result<_>>()?,
                lineage: together.record.lineage.clone(),
                leader_kills: together.leader_kills,
                lost,
                seconds: self.story.started.elapsed().as_secs_f64(),
                phases: self.story.phases.clone(),
            },
        };
        std::fs::write(out.join("summary.json"), serde_json::to_vec_pretty(&summary)?)?;
        let page = summary.page(&std::fs::read(sections)?, &std::fs::read(mapped)?);
        std::fs::write(out.join("index.html"), page)?;
        Ok(summary)
    }
}

/// Cells are normalised before they are handed out: networks take them so.
fn prepare_cells(story: &mut Story) -> Result<Cells> {
    let dir = story.args.out.join("data");
    std::fs::create_dir_all(&dir)?;
    let (file, batch_key, labels_key, query) = match &story.args.data {
        Some(file) => {
            let (batch_key, labels_key) = (story.args.batch_key.clone(), story.args.labels_key.clone());
            let keys = batch_key.zip(labels_key).context("--data needs --batch-key and --labels-key")?;
            (file.clone(), keys.0, keys.1, story.args.query.clone())
        }
        None => {
            let query: Vec<String> = (1..=story.args.sites).map(|i| format!("hospital-{i}")).collect();
            let (file, batches) = (dir.join("synthetic.h5ad"), [vec!["atlas-1".to_owned()], query.clone()].concat());
            let (batches, seed) = (batches.join(","), story.args.seed.to_string());
            let (n_cells, n_genes) = (story.args.cells.to_string(), story.args.genes.min(MOST_GENES).to_string());
            let drawn =
                ["generate", "--batches", &batches, "--n-cells", &n_cells, "--n-genes", &n_genes, "--seed", &seed];
            story.work(&[&drawn[..], &["--spatial", "--out", text(&file)?]].concat())?;
            (file, "batch".to_owned(), "cell_type".to_owned(), query)
        }
    };
    let normalised = dir.join("normalised.h5ad");
    story.work(&["preprocess", text(&file)?, "--target-sum", "1e4", "--out", text(&normalised)?])?;
    cells::split(&normalised, &dir, &batch_key, &labels_key, None, &query)
}

fn train(story: &Story, file: &Path, batch_key: &str, owner: &str, name: &str) -> Result<PathBuf> {
    let (out, seed) = (story.args.out.join(name), story.args.seed.to_string());
    let mut arguments = vec!["space", "train", text(file)?, "--batch-key", batch_key, "--out", text(&out)?];
    arguments.extend(["--owner", owner, "--dataset", DATASET, "--network-seed", &seed]);
    if story.args.data.is_none() {
        // Generated layers are few.
        arguments.extend(["--resolutions", "0.1,0.5"]);
    }
    story.work(&arguments)?;
    Ok(out)
}

/// A section that is added to an ensemble, by the command that needs no coordinator.
fn add(story: &Story, site: &SiteCells, batch_key: &str, onto: &Path, name: &str) -> Result<PathBuf> {
    let out = story.args.out.join("local").join(name);
    let train = ["space", "train", text(&site.file)?, "--batch-key", batch_key, "--onto", text(onto)?];
    let owned = ["--owner", &site.site, "--dataset", DATASET, "--out", text(&out)?];
    story.work(&[&train[..], &owned].concat())?;
    Ok(out)
}

fn federate(story: &Story, cells: &Cells, published: &Path) -> Result<Together> {
    let out = &story.args.out;
    let mut consortium = Consortium::start(&out.join("consortium"))?;
    let sites = learning(cells);
    consortium.enrol(&sites.iter().map(|site| site.site.as_str()).collect::<Vec<_>>())?;
    consortium.publish(published)?;
    let terms = |_: &SiteCells| Terms { labels_key: None, policy: POLICY, fields: FIELDS };
    let leader_kills = story.see_through(&mut consortium, cells, ("parts", sites, Leader::IsKilled), &terms)?;
    let merged = out.join("merged");
    consortium.fetch(&merged)?;
    let added = consortium.reference()?;
    let last = sites.iter().find(|site| added_last(&added, &site.site)).context("no site was merged")?;
    consortium.withdraw(&last.site)?;
    let record = consortium.reference()?;
    consortium.stop()?;
    Ok(Together { merged, record, leader_kills })
}

fn prove(story: &Story, cells: &Cells, published: &Path, together: &Together) -> Result<SpaceProofs> {
    let (first, contributions) = proofs::contributions(&together.record)?;
    let [.., before, last, withdrawn] = together.record.lineage.as_slice() else {
        anyhow::bail!("the lineage has {} versions, too few for a withdrawal", together.record.lineage.len());
    };
    let (order_free, orders_tried) = proofs::order_free(&first, &contributions, last.version)?;
    // The same sections at one place, the last site first.
    let (mut ensemble, held) = (published.to_owned(), ReferenceDir::open(&together.merged)?);
    for site in learning(cells).iter().rev() {
        ensemble = add(story, site, &cells.batch_key, &ensemble, &site.site)?;
    }
    let local = ReferenceDir::open(&ensemble)?;
    let mapping = mapping_site(cells)?;
    for (name, dir) in [("merged", &together.merged), ("local", &ensemble)] {
        let file = mapped_file(story, name);
        let line = ["space", "map", text(dir)?, text(&mapping.file)?, "--batch-key", &cells.batch_key];
        story.work(&[&line[..], &["--out", text(&file)?]].concat())?;
    }
    let bits = |name: &str| -> Result<Vec<u64>> {
        let adata = AnnData::read(mapped_file(story, name))?;
        let confidence = adata.obs.column("confidence")?.to_f64().context("confidence is a number")?;
        let distances = adata.obsp.get("dist_map").context("distances")?.to_csr()?.to_dense();
        let all = confidence.into_iter().chain(distances.into_iter().map(f64::from));
        Ok(all.map(f64::to_bits).collect())
    };
    let (by_merged, by_local) = (bits("merged")?, bits("local")?);
    Ok(SpaceProofs {
        order_free,
        orders_tried,
        repeatable: local.version().id() == held.version().id(),
        mapped_alike: by_merged == by_local,
        numbers_compared: by_merged.len(),
        withdraw_restores: withdrawn.version == before.version,
    })
}

/// How much the most probable parts tell of the cells' types, by mutual information: the most that any network tells.
fn agreement(adata: &AnnData, labels_key: &str) -> Result<f64> {
    let types = Labels::from_names(&column(adata, labels_key)?);
    let mut best = 0.0_f64;
    for name in adata.obs.column_names().into_iter().filter(|name| name.starts_with("pred_")) {
        let parts = Labels::from_names(&column(adata, &name)?);
        best = best.max(nmi(types.codes(), parts.codes(), NmiAverage::Arithmetic)?);
    }
    Ok(best)
}

fn mapped_file(story: &Story, ensemble: &str) -> PathBuf {
    story.args.out.join(format!("mapped-by-{ensemble}.h5ad"))
}

/// The sites that learn their sections: all but the last.
fn learning(cells: &Cells) -> &[SiteCells] {
    cells.sites.split_last().map_or(&[], |(_, sites)| sites)
}

/// The site that maps its cells as if nobody knew where they lie.
fn mapping_site(cells: &Cells) -> Result<&SiteCells> {
    cells.sites.last().context("there is no site")
}

/// What a site lets out.
const POLICY: &str = "parts = { min_cells = 20 }\n";
/// Where a site's cells have their places.
const FIELDS: &str = "coordinates = \"obsm/spatial\"\n";
/// Sections measure few genes, and the network of genes is theirs.
const MOST_GENES: u32 = 150;

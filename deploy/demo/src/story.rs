//! The main job, step by step, and what it proves.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use archipelago_common::{ConditionKey, policy::TaskBounds, record::ReferenceRecord, reference_dir::ReferenceDir};
use archipelago_processes::{program, run, wait_until};

use crate::{
    args::Args,
    cells::{self, Cells, Embedding, SiteCells},
    consortium::{Consortium, DATASET, OPERATOR, Terms},
    modalities,
    printer::say,
    proofs::{self, Exact},
    summary::{Phase, Summary},
    tcells,
};

/// Where the worker puts the latent representation.
const LATENT: &str = "X_archipelago";
/// Name of the file of gene sets that are made with the cells.
const GENERATED_SETS: &str = "synthetic.gmt";

/// One run of the demonstration.
pub struct Story {
    pub(crate) args: Args,
    worker: PathBuf,
    pub(crate) started: Instant,
    pub(crate) phases: Vec<Phase>,
}

/// The reference before and after the merge, on disk, and what the coordinators say about it.
pub(crate) struct Merged {
    pub(crate) published: PathBuf,
    pub(crate) merged: PathBuf,
    pub(crate) record: ReferenceRecord,
    pub(crate) leader_kills: u32,
}

/// What becomes of the leading coordinator in the middle of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leader {
    IsKilled,
    Lives,
}

impl Story {
    /// Prepares an empty output folder.
    pub fn new(args: Args) -> Result<Self> {
        if args.out.exists() {
            let is_ours = args.out.join(MARK).is_file() || args.out.read_dir()?.next().is_none();
            ensure!(
                is_ours,
                "`{}` exists and was not made by this demonstration; choose another folder with --out",
                args.out.display()
            );
            std::fs::remove_dir_all(&args.out).with_context(|| format!("failed to empty `{}`", args.out.display()))?;
        }
        std::fs::create_dir_all(&args.out)?;
        std::fs::write(args.out.join(MARK), "made by archipelago-demo; replaced by its next run\n")?;
        let args = Args { out: args.out.canonicalize()?, ..args };
        Ok(Self { args, worker: program("archipelago-worker")?, started: Instant::now(), phases: Vec::new() })
    }

    /// Runs everything and writes `summary.json`, the pictures and `index.html`.
    pub fn tell(mut self) -> Result<Summary> {
        let cells = self.phase("cells: one file for the reference, one per site", Self::prepare_cells)?;
        let published = self.phase("reference training", |story| story.train_reference(&cells))?;
        let merged =
            self.phase("consortium: publish, map at each site, merge", |story| story.federate(&cells, published))?;
        let local = self.phase("the same surgery once more, locally", |story| story.repeat_locally(&cells, &merged))?;
        let (exact, after) = self.phase("proofs", |story| story.prove(&cells, &merged))?;
        let summary = self.judge(&cells, &merged, exact, &after, &local)?;
        Ok(summary)
    }

    pub(crate) fn prepare_cells(&mut self) -> Result<Cells> {
        let dir = self.args.out.join("data");
        std::fs::create_dir_all(&dir)?;
        if let Some(file) = &self.args.data {
            let (Some(batch_key), Some(labels_key)) = (&self.args.batch_key, &self.args.labels_key) else {
                anyhow::bail!("--data needs --batch-key and --labels-key");
            };
            return cells::split(file, &dir, batch_key, labels_key, self.args.layer.as_deref(), &self.args.query);
        }
        if self.card_lists("fields", "receptor")? {
            self.args.fields = tcells::FIELDS.map(str::to_owned).into();
            return tcells::prepare(&self.args, &self.worker, &dir);
        }
        let takes_modalities = self.card_lists("options", modalities::OPTION)?;
        let query: Vec<String> = (1..=self.args.sites).map(|i| format!("hospital-{i}")).collect();
        let atlas: Vec<String> = (1..=N_ATLAS).map(|i| format!("atlas-{i}")).collect();
        let batches = [atlas, query.clone()].concat().join(",");
        if let Some(real) = modalities::Real::find().filter(|_| takes_modalities) {
            let file = dir.join("samples.h5ad");
            real.write(&file, &query, self.args.seed)?;
            let mut cells = cells::split(&file, &dir, "sample", "cell_type", None, &query)?;
            modalities::place(&mut cells, true);
            return Ok(cells);
        }
        let file = dir.join("synthetic.h5ad");
        let (n_cells, n_genes) = (self.args.cells.to_string(), self.args.genes.to_string());
        let (seed, sets) = (self.args.seed.to_string(), dir.join(GENERATED_SETS));
        let mut arguments = vec![
            "generate",
            "--out",
            text(&file)?,
            "--batches",
            &batches,
            "--n-cells",
            &n_cells,
            "--n-genes",
            &n_genes,
            "--seed",
            &seed,
            "--write-gene-sets",
            text(&sets)?,
        ];
        arguments.extend(HARD);
        if self.args.sites > 1 {
            arguments.extend(["--without", "hospital-2=type-02"]);
        }
        if takes_modalities {
            arguments.extend(["--n-proteins", modalities::N_GENERATED]);
        }
        self.work(&arguments)?;
        let mut cells = cells::split(&file, &dir, "batch", "cell_type", None, &query)?;
        if takes_modalities {
            modalities::place(&mut cells, false);
        }
        Ok(cells)
    }

    pub(crate) fn train_reference(&mut self, cells: &Cells) -> Result<PathBuf> {
        let out = self.args.out.join("reference");
        let (epochs, seed) = (self.args.reference_epochs.to_string(), self.args.seed.to_string());
        let mut arguments = vec![
            "train",
            text(&cells.reference)?,
            "--out",
            text(&out)?,
            "--batch-key",
            &cells.batch_key,
            "--model",
            &self.args.model,
            "--epochs",
            &epochs,
            "--seed",
            &seed,
            "--owner",
            OPERATOR,
            "--dataset",
            DATASET,
        ];
        arguments.extend(layer(cells));
        arguments.extend(self.args.fields.iter().flat_map(|field| ["--field", field.as_str()]));
        let generated = self.args.out.join("data").join(GENERATED_SETS);
        arguments.extend(cells.train.iter().map(String::as_str));
        if self.card_lists("fields", "gene_sets")? {
            let sets = self.args.gene_sets.as_ref().unwrap_or(&generated);
            ensure!(sets.is_file(), "the model takes gene sets: --gene-sets FILE");
            arguments.extend(["--gene-sets", text(sets)?]);
        }
        self.work(&arguments)?;
        Ok(out)
    }

    /// Whether the model's card has something of this name among its fields, or its options.
    fn card_lists(&self, kind: &str, name: &str) -> Result<bool> {
        let shown = self.work(&["models", &self.args.model, "--format", "json"])?;
        let cards: serde_json::Value = serde_json::from_str(&shown)?;
        let listed = cards[0][kind].as_array().cloned().unwrap_or_default();
        Ok(listed.iter().any(|one| one["name"] == name))
    }

    /// The whole life of a task, with the leader killed in the middle of it.
    fn federate(&mut self, cells: &Cells, published: PathBuf) -> Result<Merged> {
        let mut consortium = Consortium::start(&self.args.out.join("consortium"))?;
        let names: Vec<&str> = cells.sites.iter().map(|site| site.site.as_str()).collect();
        consortium.enrol(&names)?;
        consortium.publish(&published)?;
        let lines: Vec<(&str, String)> =
            cells.sites.iter().map(|site| (site.site.as_str(), site.field_lines())).collect();
        let policy = policy(self.args.fields.iter().chain(&cells.train), &published, cells)?;
        let terms = |site: &SiteCells| {
            let fields = lines.iter().find(|(name, _)| *name == site.site).map_or("", |(_, lines)| lines);
            Terms { labels_key: Some(&cells.labels_key), policy: &policy, fields }
        };
        let leader_kills =
            self.see_through(&mut consortium, cells, ("both", &cells.sites, Leader::IsKilled), &terms)?;
        let merged = self.args.out.join("merged");
        consortium.fetch(&merged)?;
        let before_withdrawal = consortium.reference()?;
        let last = cells.sites.iter().find(|site| added_last(&before_withdrawal, &site.site));
        let last = last.context("no site's columns were merged")?;
        consortium.withdraw(&last.site)?;
        let record = consortium.reference()?;
        consortium.stop()?;
        Ok(Merged { published, merged, record, leader_kills })
    }

    /// Publishes a task and has sites do it; how often the leader was killed in the middle.
    pub(crate) fn see_through<'a>(
        &self,
        consortium: &mut Consortium,
        cells: &Cells,
        (ask, sites, leader): (&str, &[SiteCells], Leader),
        terms: &dyn Fn(&SiteCells) -> Terms<'a>,
    ) -> Result<u32> {
        let task = consortium.publish_task(self.args.surgery_epochs, self.args.seed, ask)?;
        for site in sites {
            consortium.start_site(site, cells, &terms(site))?;
        }
        let half_way = (sites.len() as u64).div_ceil(2);
        let mut leader_kills = 0;
        // A site's worker ends well when it has been told that its submission is accepted, and no sooner. Whether the
        // coordinators still hold what they acknowledged is looked at afterwards, not waited for.
        wait_until("every site is told that its submission is accepted", PATIENCE, || {
            consortium.require_alive()?;
            let accepted = consortium.accepted(task)?;
            let is_time = || Ok::<_, anyhow::Error>(accepted >= half_way || consortium.is_training(task)?);
            if leader == Leader::IsKilled && leader_kills == 0 && is_time()? {
                let leader = consortium.kill_leader()?;
                say(&format!("killed coordinator {leader}, the leader, while the sites were at work"));
                leader_kills += 1;
            }
            Ok(consortium.sites_done()?.then_some(()))
        })?;
        if leader == Leader::IsKilled {
            ensure!(leader_kills > 0, "the sites were done before the leader could be killed");
            consortium.restart_dead_coordinator()?;
        }
        consortium.close_task(task)?;
        Ok(leader_kills)
    }

    /// Repeats each site's surgery with the command that needs no coordinator; also gives the untrained positions.
    fn repeat_locally(&mut self, cells: &Cells, merged: &Merged) -> Result<Vec<PathBuf>> {
        let (epochs, seed) = (self.args.surgery_epochs.to_string(), self.args.seed.to_string());
        let mut files = Vec::new();
        for site in &cells.sites {
            let out = self.args.out.join("local").join(&site.site);
            let mut arguments = vec![
                "map",
                text(&merged.published)?,
                text(&site.file)?,
                "--out",
                text(&out)?,
                "--batch-key",
                &cells.batch_key,
                "--owner",
                &site.site,
                "--dataset",
                DATASET,
                "--epochs",
                &epochs,
                "--seed",
                &seed,
                "--untrained",
            ];
            let fields = site.field_flags();
            arguments.extend(fields.iter().map(String::as_str));
            arguments.extend(layer(cells));
            self.work(&arguments)?;
            files.push(out.join("mapped.h5ad"));
        }
        Ok(files)
    }

    fn prove(&mut self, cells: &Cells, merged: &Merged) -> Result<(Exact, (Embedding, Embedding))> {
        let (first, contributions) = proofs::contributions(&merged.record)?;
        let lineage = &merged.record.lineage;
        let [.., before, last, withdrawn] = lineage.as_slice() else {
            anyhow::bail!("the lineage has {} versions, too few for a withdrawal", lineage.len());
        };
        let (order_free, orders_tried) = proofs::order_free(&first, &contributions, last.version)?;
        let reference_before =
            self.latent(&merged.published, (&cells.reference, &[]), OPERATOR, cells, "reference-before")?;
        let reference_after =
            self.latent(&merged.merged, (&cells.reference, &[]), OPERATOR, cells, "reference-after")?;
        let mut same = reference_before.same_bits(&reference_after);
        let mut cells_compared = reference_before.labels.len();
        let mut query: Option<Embedding> = None;
        for site in &cells.sites {
            let at_site = self.site_embedding(site, cells)?;
            let after =
                self.latent(&merged.merged, (&site.file, &site.field_flags()), &site.site, cells, &site.site)?;
            same &= at_site.same_bits(&after);
            cells_compared += after.labels.len();
            query = Some(match query {
                None => after,
                Some(query) => query.followed_by(after)?,
            });
        }
        let exact = Exact {
            order_free,
            orders_tried,
            earlier_bit_identical: same,
            cells_compared,
            withdraw_restores: withdrawn.version == before.version,
            repeatable: self.repeats(cells, merged)?,
        };
        Ok((exact, (reference_after, query.context("there is no site")?)))
    }

    /// Whether the local repetition of each site's surgery gave the columns that the site sent.
    fn repeats(&self, cells: &Cells, merged: &Merged) -> Result<bool> {
        let held = ReferenceDir::open(&merged.merged)?;
        let mut same = true;
        for site in &cells.sites {
            let key = site.condition()?;
            let local = ReferenceDir::open(&self.args.out.join("local").join(&site.site))?;
            same &= local.version().columns.get(&key) == held.version().columns.get(&key);
        }
        Ok(same)
    }

    fn latent(
        &self,
        reference: &Path,
        (file, fields): (&Path, &[String]),
        owner: &str,
        cells: &Cells,
        name: &str,
    ) -> Result<Embedding> {
        let dir = self.args.out.join("latent");
        std::fs::create_dir_all(&dir)?;
        let out = dir.join(format!("{name}.h5ad"));
        let mut arguments = vec![
            "latent",
            text(reference)?,
            text(file)?,
            "--out",
            text(&out)?,
            "--batch-key",
            &cells.batch_key,
            "--owner",
            owner,
        ];
        arguments.extend(fields.iter().map(String::as_str));
        arguments.extend(layer(cells));
        self.work(&arguments)?;
        Embedding::read(&out, LATENT, &cells.batch_key, &cells.labels_key)
    }

    fn site_embedding(&self, site: &cells::SiteCells, cells: &Cells) -> Result<Embedding> {
        let results = self.args.out.join("consortium").join(&site.site).join("results");
        let file = find_mapped(&results)?;
        Embedding::read(&file, LATENT, &cells.batch_key, &cells.labels_key)
    }

    pub(crate) fn work(&self, arguments: &[&str]) -> Result<String> {
        run(&self.worker, arguments)
    }

    pub(crate) fn phase<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        say(&format!("— {name}"));
        let started = Instant::now();
        let result = work(self).with_context(|| format!("in the part `{name}`"))?;
        self.phases.push(Phase { name: name.to_owned(), seconds: started.elapsed().as_secs_f64() });
        Ok(result)
    }
}

/// Whether the last merge added conditions of this site.
pub(crate) fn added_last(reference: &ReferenceRecord, site: &str) -> bool {
    use archipelago_common::record::Cause;
    let is_of = |keys: &[ConditionKey]| keys.iter().any(|key| key.owner().as_str() == site);
    matches!(reference.lineage.last().map(|event| &event.cause), Some(Cause::Merged { keys, .. }) if is_of(keys))
}

/// The mapped file among a site's results, one folder per task.
pub(crate) fn find_mapped(results: &Path) -> Result<PathBuf> {
    let folders = results.read_dir().with_context(|| format!("failed to list `{}`", results.display()))?;
    let files = folders.filter_map(|entry| Some(entry.ok()?.path().join("mapped.h5ad"))).filter(|file| file.is_file());
    files.last().with_context(|| format!("`{}` holds no mapped cells", results.display()))
}

/// The policy of every site: the defaults, that the reference may read its fields where the demonstration put them, and, where the
/// smallest site has fewer cells than the columns of the model ask for by default, how many numbers a cell it agrees to.
fn policy<'a>(words: impl Iterator<Item = &'a String>, reference: &Path, cells: &Cells) -> Result<String> {
    let places: Vec<&str> = words.filter_map(|word| Some(word.split_once('=')?.1)).collect();
    let mut policy = if places.is_empty() { String::new() } else { format!("may_read = {places:?}\n") };
    let columns = ReferenceDir::open(reference)?.base()?.card.layout.columns();
    let n_numbers: usize = columns.values().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let n_cells = cells.sites.iter().map(|site| site.n_cells).min().unwrap_or(1).max(1);
    let a_cell = n_numbers as f64 / n_cells as f64;
    if a_cell > TaskBounds::default().max_numbers_per_cell {
        policy += &format!("[tasks]\nmax_numbers_per_cell = {:.1}\n", (10.0 * a_cell).ceil() / 10.0);
    }
    Ok(policy)
}

fn layer(cells: &Cells) -> impl Iterator<Item = &str> {
    cells.layer.iter().flat_map(|layer| ["--layer", layer.as_str()])
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))
}

/// Batches of the reference that is made.
const N_ATLAS: u16 = 4;
/// What makes cells hard to map: related types in unequal shares, a site far from all batches of the reference.
const HARD: [&str; 10] = [
    "--n-types",
    "8",
    "--related",
    "3",
    "--uneven",
    "0.6",
    "--batch-effect",
    "0.25",
    "--batch-effect-of",
    "hospital-1=1.0",
];
/// The longest that the sites may take.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// A file that says that a folder is ours to replace.
const MARK: &str = ".archipelago-demo";

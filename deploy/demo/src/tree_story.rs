//! Sites learn one tree of cell types over a reference, each with names of its own and one with a type that nobody has; what the
//! run proves of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use archipelago_analysis::hierarchy::{Names, Node, SharedTree, Tree, unique};
use archipelago_anndata::{AnnData, Column, Compression};
use archipelago_common::{
    BlobRef, ConditionKey, condition,
    part::Member,
    record::{Cause, ReferenceRecord},
    reference_dir::ReferenceDir,
    tree,
};

use crate::{
    args::Args,
    cells::{Cells, SiteCells, column, distinct},
    consortium::{Consortium, Terms},
    proofs,
    story::{Leader, Story, find_mapped, text},
    summary::{Run, Site},
    tree_summary::{TreeProofs, TreeSummary},
};

/// What this demonstration is called among models.
pub const MODEL: &str = "treearches";

/// One run of the demonstration.
pub struct TreeStory {
    story: Story,
}

/// What the consortium came to.
struct Learned {
    members: BTreeMap<ConditionKey, Member>,
    record: ReferenceRecord,
    /// With how many cells the site without labels has where, if there is one.
    annotated: Option<BTreeMap<ConditionKey, Member>>,
    /// The same after a site withdrew.
    members_after: BTreeMap<ConditionKey, Member>,
    record_after: ReferenceRecord,
    leader_kills: u32,
}

impl TreeStory {
    /// Prepares an empty output folder. Of generated sites there is one more, whose cells have no labels.
    pub fn new(args: Args) -> Result<Self> {
        ensure!(args.data.is_none() || args.query.len() >= 3, "a tree wants three sites: --query a,b,c");
        ensure!(args.data.is_some() || args.sites >= 3, "a tree wants three sites");
        let sites = args.sites + 1;
        Ok(Self { story: Story::new(Args { model: "scvi".to_owned(), sites, ..args })? })
    }

    /// Runs everything and writes `summary.json`, `tree.html` and `index.html`.
    pub fn tell(mut self) -> Result<TreeSummary> {
        let cells = self.story.phase("cells: one file for the reference, one per site", Story::prepare_cells)?;
        let new_type = self.story.phase("names: each site calls its types by its own", |_| give_names(&cells))?;
        let trained = self.story.phase("reference training", |story| story.train_reference(&cells))?;
        let learned =
            self.story.phase("consortium: machines, counts, the tree", |story| federate(story, &cells, &trained))?;
        let exact = self.story.phase("proofs", |story| prove(story, &cells, &learned))?;
        self.judge(&cells, &learned, exact, new_type)
    }

    fn judge(mut self, cells: &Cells, learned: &Learned, exact: TreeProofs, new_type: String) -> Result<TreeSummary> {
        let out = self.story.args.out.clone();
        let shared = tree::shared(&learned.members)?;
        let meanings = Meanings::read(cells)?;
        let annotated = |site| meanings.annotated_rightly(&out, site, cells, &shared.tree);
        let annotated_rightly = unlabelled(cells).map(annotated).transpose()?;
        let (matched, matched_rightly) = meanings.matches(&shared.tree);
        self.story.phase("pages", |story| show(story, cells))?;
        let owners: BTreeSet<&str> = learned.members.keys().map(|key| key.owner().as_str()).collect();
        let site = |site: &SiteCells| -> Result<Site> {
            let (name, batch) = (site.site.clone(), site.batch.clone());
            let bytes_out = self.story.bytes_out(&site.site)?;
            Ok(Site { site: name, batch, n_cells: site.n_cells, bytes_out, bytes_kept: site.bytes })
        };
        let new_label = unique(&own_name(LAST, &new_type), &labelled(cells)[LAST].condition()?.to_string());
        let is_new = |node: &Node| node.names() == std::slice::from_ref(&new_label);
        let summary = TreeSummary {
            exact,
            tree: shared.tree.newick(Names::All),
            tree_after_withdrawal: tree::shared(&learned.members_after)?.tree.newick(Names::All),
            matched,
            matched_rightly,
            new_type: (new_type.clone(), shared.tree.root().children().iter().any(is_new)),
            annotated_rightly,
            annotated: learned
                .annotated
                .as_ref()
                .map(|all| tree::annotated(all, &shared))
                .transpose()?
                .unwrap_or_default(),
            run: Run {
                sites: cells.sites.iter().map(site).collect::<Result<_>>()?,
                lineage: learned.record_after.lineage.clone(),
                leader_kills: learned.leader_kills,
                lost: labelled(cells).iter().filter(|site| !owners.contains(site.site.as_str())).count(),
                seconds: self.story.started.elapsed().as_secs_f64(),
                phases: self.story.phases.clone(),
            },
        };
        std::fs::write(out.join("summary.json"), serde_json::to_vec_pretty(&summary)?)?;
        std::fs::write(out.join("index.html"), summary.page(&std::fs::read(out.join("tree.svg"))?))?;
        Ok(summary)
    }
}

/// Gives each site with labels names of its own, and takes one type away from everybody but the last of them.
fn give_names(cells: &Cells) -> Result<String> {
    let known = labelled(cells);
    let last = AnnData::read(&known[LAST].file)?;
    let types = column(&last, &cells.labels_key)?;
    let n_cells = |label: &String| types.iter().filter(|other| *other == label).count();
    let new = distinct(&types).into_iter().rev().find(|label| n_cells(label) >= FEWEST_CELLS);
    let new = new.context("the last site has no type with enough cells")?;
    let keep = |file: &Path, keeps_new: bool, site: Option<usize>| -> Result<()> {
        let all = AnnData::read(file)?;
        let types = column(&all, &cells.labels_key)?;
        let rows: Vec<usize> = (0..types.len()).filter(|&row| keeps_new || types[row] != new).collect();
        let mut kept = all.select_obs(&rows)?;
        if let Some(site) = site {
            let names: Vec<String> = rows.iter().map(|&row| own_name(site, &types[row])).collect();
            kept.obs.insert(OWN_NAMES, Column::categorical(&names))?;
        }
        Ok(kept.write(file, Compression::Gzip(4))?)
    };
    keep(&cells.reference, false, None)?;
    for (place, site) in known.iter().enumerate() {
        keep(&site.file, place == LAST, Some(place))?;
    }
    Ok(new)
}

/// How a site calls a type.
fn own_name(site: usize, label: &str) -> String {
    match site {
        0 => label.to_owned(),
        1 => label.to_uppercase(),
        _ => format!("our {label}"),
    }
}

/// Two tasks for the sites with labels; the tree; one for annotations at the others; and a withdrawal.
fn federate(story: &Story, cells: &Cells, trained: &Path) -> Result<Learned> {
    let (out, labelled) = (&story.args.out, labelled(cells));
    let shared = out.join("atlas");
    story.work(&["tree", "share", text(trained)?, "--out", text(&shared)?])?;
    let mut consortium = Consortium::start(&out.join("consortium"))?;
    let names: Vec<&str> = cells.sites.iter().map(|site| site.site.as_str()).collect();
    consortium.enrol(&names)?;
    consortium.publish(&shared)?;
    let policy = format!("new_labels = true\nparts = {{ min_cells = {MIN_CELLS} }}\n");
    let terms = |site: &SiteCells| {
        let is_known = labelled.iter().any(|known| known.site == site.site);
        Terms { labels_key: is_known.then_some(OWN_NAMES), policy: &policy, fields: "" }
    };
    let mut leader_kills = 0;
    for (ask, leader) in [("both", Leader::IsKilled), ("parts", Leader::Lives)] {
        leader_kills += story.see_through(&mut consortium, cells, (ask, labelled, leader), &terms)?;
    }
    let fetch = |consortium: &Consortium, name: &str| -> Result<_> {
        let dir = out.join(name);
        consortium.fetch(&dir)?;
        let held = ReferenceDir::open(&dir)?;
        held.parts(&held.base()?.card.layout).map_err(anyhow::Error::from)
    };
    let derive = |consortium: &Consortium, name: &str| -> Result<_> {
        consortium.derive(tree::VALUE, &out.join(name))?;
        consortium.reference()
    };
    let (members, record) = (fetch(&consortium, MERGED)?, derive(&consortium, MERGED)?);
    let mut annotated = None;
    if let Some(site) = unlabelled(cells) {
        story.see_through(
            &mut consortium,
            cells,
            ("annotations", std::slice::from_ref(site), Leader::Lives),
            &terms,
        )?;
        annotated = Some(fetch(&consortium, ANNOTATED)?);
    }
    consortium.withdraw(&labelled[1].site)?;
    let (members_after, record_after) = (fetch(&consortium, WITHOUT)?, derive(&consortium, WITHOUT)?);
    consortium.stop()?;
    Ok(Learned { members, record, annotated, members_after, record_after, leader_kills })
}

fn prove(story: &Story, cells: &Cells, learned: &Learned) -> Result<TreeProofs> {
    let expected = tree::derive(&learned.members)?;
    let (first, contributions) = proofs::contributions(&learned.record)?;
    let current = learned.record.lineage.last().context("a lineage")?.version;
    let (order_free, orders_tried) = proofs::order_free(&first, &contributions, current)?;
    let mut tree_order_free = true;
    for order in proofs::orders(contributions.len()) {
        let mut merged = BTreeMap::new();
        for place in order {
            let keys = contributions[place].keys();
            let handed_in = keys.filter_map(|key| Some((key.clone(), learned.members.get(key)?.clone())));
            merged = condition::merge(&merged, &handed_in.collect())?;
        }
        tree_order_free &= tree::derive(&merged)? == expected;
    }
    let file = story.args.out.join("tree.json");
    std::fs::write(&file, &expected)?;
    let again = story.args.out.join("again.nwk");
    story.work(&["tree", "learn", text(&file)?, "--out", text(&again)?])?;
    let shared: SharedTree = serde_json::from_slice(&expected)?;
    Ok(TreeProofs {
        order_free,
        orders_tried,
        tree_order_free,
        digest_in_lineage: derived(&learned.record) == Some(BlobRef::of(&expected)),
        same_from_tables: std::fs::read_to_string(&again)?.trim() == format!("{};", shared.tree.newick(Names::First)),
        annotations_counted: is_counted(story, cells, learned, &shared)?,
        withdrawal_replays: replays(learned)?,
    })
}

/// Whether the consortium counts, for each label, the cells to which the site's own file gives it, and no label of few.
fn is_counted(story: &Story, cells: &Cells, learned: &Learned, tree: &SharedTree) -> Result<bool> {
    let (Some(site), Some(annotated)) = (unlabelled(cells), &learned.annotated) else { return Ok(true) };
    let mut at_home: BTreeMap<String, u64> = BTreeMap::new();
    for label in column(&AnnData::read(&mapped(&story.args.out, site)?)?, "tree_label")? {
        *at_home.entry(label).or_default() += 1;
    }
    at_home.retain(|_, n| *n >= MIN_CELLS);
    Ok(tree::annotated(annotated, tree)? == at_home)
}

/// Whether the tree after the withdrawal is that of the members that were there before, without the site's.
fn replays(learned: &Learned) -> Result<bool> {
    let gone = learned.record_after.lineage.iter().rev().find_map(|event| match &event.cause {
        Cause::Withdrawn { keys, .. } => Some(keys),
        _ => None,
    });
    let gone = gone.context("a withdrawal")?;
    let mut rest = learned.members.clone();
    rest.retain(|key, _| !gone.contains(key));
    let expected = tree::derive(&rest)?;
    let differs = expected != tree::derive(&learned.members)?;
    Ok(differs && derived(&learned.record_after) == Some(BlobRef::of(&expected)))
}

/// The digest of the last tree in a lineage.
fn derived(record: &ReferenceRecord) -> Option<BlobRef> {
    record.lineage.iter().rev().find_map(|event| match &event.cause {
        Cause::Derived { function, result, .. } if function.as_str() == tree::FUNCTION => Some(*result),
        _ => None,
    })
}

/// What the labels of all sites mean, by the names that they have in the tree: the type, and the site.
struct Meanings(BTreeMap<String, (String, usize)>);

impl Meanings {
    fn read(cells: &Cells) -> Result<Self> {
        let mut meanings = BTreeMap::new();
        for (place, site) in labelled(cells).iter().enumerate() {
            let (adata, key) = (AnnData::read(&site.file)?, site.condition()?.to_string());
            let (names, types) = (column(&adata, OWN_NAMES)?, column(&adata, &cells.labels_key)?);
            let of_site = names.iter().zip(types).map(|(name, label)| (unique(name, &key), (label, place)));
            meanings.extend(of_site);
        }
        Ok(Self(meanings))
    }

    /// Of pairs of labels of two sites: of those that mean one type, the share on one node; of those on one node, the share that
    /// means one type.
    fn matches(&self, tree: &Tree) -> (f64, f64) {
        let (mut n_same, mut n_together, mut n_both) = (0, 0, 0);
        for (label, (meant, site)) in &self.0 {
            for (other, (other_meant, _)) in self.0.iter().filter(|(other, (_, of))| of < site && *other != label) {
                let same = meant == other_meant;
                let together = tree.node(label).is_some_and(|node| node.carries(other));
                n_same += usize::from(same);
                n_together += usize::from(together);
                n_both += usize::from(same && together);
            }
        }
        let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        (share(n_both, n_same), share(n_both, n_together))
    }

    /// The share of a site's cells whose node means their type.
    fn annotated_rightly(&self, out: &Path, site: &SiteCells, cells: &Cells, tree: &Tree) -> Result<f64> {
        let adata = AnnData::read(&mapped(out, site)?)?;
        let (types, found) = (column(&adata, &cells.labels_key)?, column(&adata, "tree_label")?);
        let means = |node: &String, label: &String| {
            let names = tree.node(node).map(Node::names).unwrap_or_default();
            names.iter().any(|name| self.0.get(name).is_some_and(|(meant, _)| meant == label))
        };
        let n_right = found.iter().zip(&types).filter(|(node, label)| means(node, label)).count();
        Ok(n_right as f64 / types.len().max(1) as f64)
    }
}

/// The worker's own page and picture of the tree.
fn show(story: &Story, cells: &Cells) -> Result<()> {
    let out = &story.args.out;
    let [merged, page, picture] = [MERGED, "tree.html", "tree.svg"].map(|name| out.join(name));
    let mut arguments = vec!["tree", "show", text(&merged)?, "--page", text(&page)?, "--picture", text(&picture)?];
    let placed = unlabelled(cells).map(|site| mapped(out, site)).transpose()?;
    if let Some(placed) = &placed {
        arguments.extend(["--cells", text(placed)?, "--labels-key", &cells.labels_key]);
    }
    story.work(&arguments).map(drop)
}

/// The file of a site's cells as its worker left them.
fn mapped(out: &Path, site: &SiteCells) -> Result<PathBuf> {
    find_mapped(&out.join("consortium").join(&site.site).join("results"))
}

/// The sites whose cells have labels: the first three.
fn labelled(cells: &Cells) -> &[SiteCells] {
    &cells.sites[..=LAST]
}

/// The site whose cells have none, if there is one more.
fn unlabelled(cells: &Cells) -> Option<&SiteCells> {
    cells.sites.get(LAST + 1)
}

/// The last of the sites with labels, which alone has a type.
const LAST: usize = 2;
/// The column of a site's own names.
const OWN_NAMES: &str = "own_names";
/// Of how many cells is what a site lets out beside columns, at least.
const MIN_CELLS: u64 = 10;
/// The folder of the version that all sites with labels are in.
const MERGED: &str = "merged";
/// That of the version in which the cells of the site without labels are counted.
const ANNOTATED: &str = "annotated";
/// That of the version without the site that withdrew.
const WITHOUT: &str = "without";
/// Cells of a type that is worth finding.
const FEWEST_CELLS: usize = 30;

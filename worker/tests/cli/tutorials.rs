//! The tutorials' commands, taken from the pages themselves: on small made-up cells, or on the real cells where
//! `ARCHIPELAGO_TUTORIALS` asks for it (`make tutorials`), which also renews the pictures.

use std::path::{Path, PathBuf};

use archipelago_anndata::{AnnData, Column, Compression, DataFrame, Element};

use super::Bench;

/// A page's files and commands, in order.
struct Tutorial {
    name: String,
    /// Files that the page shows, with their names.
    files: Vec<(String, String)>,
    commands: Vec<Vec<String>>,
    /// Pictures that the page shows.
    pictures: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorials")
}

impl Tutorial {
    fn all() -> Vec<Self> {
        let pages = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
        let mut pages: Vec<PathBuf> =
            pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
        pages.retain(|path| !path.ends_with("README.md"));
        pages.sort();
        assert!(pages.len() >= 5, "{} tutorials", pages.len());
        pages.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut tutorial = Self { name, files: Vec::new(), commands: Vec::new(), pictures: Vec::new() };
        let mut block: Option<(String, String)> = None;
        for line in text.lines() {
            match (&mut block, line.strip_prefix("```")) {
                (Some(_), Some(_)) => tutorial.take(block.take().unwrap()),
                (None, Some(info)) => block = Some((info.to_owned(), String::new())),
                (Some((_, body)), None) => *body += &format!("{line}\n"),
                (None, None) => {
                    let links = line.split("](img/").skip(1);
                    tutorial.pictures.extend(links.map(|rest| rest.split(')').next().unwrap().to_owned()));
                }
            }
        }
        assert!(block.is_none(), "{}: a block has no end", path.display());
        assert!(!tutorial.commands.is_empty(), "{} has no command", path.display());
        tutorial
    }

    fn take(&mut self, (info, body): (String, String)) {
        match info.split_once(' ') {
            Some((_, file)) => self.files.push((file.to_owned(), body)),
            None if info == "sh" => {
                let joined = body.replace("\\\n", " ");
                let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                for line in lines {
                    let mut words = words(line);
                    assert_eq!(words.remove(0), "archipelago-worker", "{}: {line}", self.name);
                    self.commands.push(words);
                }
            }
            None => {}
        }
    }

    /// Runs the page's commands in a directory; `change` may make them shorter.
    fn run(&self, bench: &Bench, change: impl Fn(&mut Vec<String>)) {
        for (file, body) in &self.files {
            std::fs::write(bench.path(file), body).unwrap();
        }
        for command in &self.commands {
            let mut command = command.clone();
            change(&mut command);
            let args: Vec<&str> = command.iter().map(String::as_str).collect();
            bench.run(&args);
        }
    }

    /// `img/1-umap.png` of the page `1-…` is what its command wrote as `umap.png`.
    fn source_of(&self, picture: &str) -> String {
        let number = self.name.split('-').next().unwrap();
        picture.strip_prefix(&format!("{number}-")).unwrap_or_else(|| panic!("{picture} of {}", self.name)).to_owned()
    }
}

/// The words of a command; one in quotes may have spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// One epoch, few steps, little of everything.
fn shorter(command: &mut Vec<String>) {
    let value = |flag: &str| match flag {
        "--epochs" | "--maxiter" => Some("2"),
        "--pretraining-epochs" => Some("1"),
        "--clusters" => Some("0"),
        "--n-neighbors" => Some("15"),
        "--n-latent" => Some("4"),
        "--n-samples" | "--min-cells" => Some("2"),
        "--hidden-layer-sizes" => Some("16,8"),
        _ => None,
    };
    for at in 1..command.len() {
        if let Some(value) = value(&command[at - 1]) {
            command[at] = value.to_owned();
        }
    }
    let is_given = |flag: &str, command: &[String]| command.iter().any(|word| word == flag);
    match command[0].as_str() {
        "umap" => command.extend(["--maxiter".to_owned(), "10".to_owned()]),
        "train" => {
            let latent: &[&str] = if is_given("--n-latent", command) { &[] } else { &["--n-latent", "4"] };
            let small = ["--n-hidden", "16"];
            let receptors = is_given("mvtcr", command);
            let own = receptors
                || ["--hidden-layer-sizes", "scpoli", "--modalities"].iter().any(|flag| is_given(flag, command));
            let small: &[&str] = if own { &[] } else { &small };
            let latent = if own { &[] } else { latent };
            if receptors {
                command.extend(["--epochs", "2", "--embedding-size", "8", "--gene-hidden", "16"].map(str::to_owned));
            }
            command.extend(small.iter().chain(latent).chain(&["--device", "cpu"]).map(|word| (*word).to_owned()));
        }
        "map" | "latent" | "predict" | "results" => command.extend(["--device", "cpu"].map(str::to_owned)),
        _ => {}
    }
}

/// Made-up cells under the name of the real file, with its columns and batches and the genes that pages name.
fn stand_in(bench: &Bench) {
    let batches = "10x_3pv1,10x_3pv2,facs_sorted,10x_5p,10x_pbmc3k";
    bench.run(&["generate", "--batches", batches, "--n-cells", "40", "--n-genes", "300", "--out", CELLS]);
    let mut cells = AnnData::read(bench.path(CELLS)).unwrap();
    name_strongest(&mut cells, &["CD3D", "IL7R", "CD8A", "GNLY", "MS4A1", "CD14", "LYZ", "FCGR3A", "PPBP", "FAM26F"]);
    let types = cells.obs.column("cell_type").unwrap().to_strings();
    let lineage = |name: &Option<String>| if name.as_deref() == Some("type-01") { "T" } else { "other" };
    let lineage: Vec<&str> = types.iter().map(lineage).collect();
    cells.obs.insert("lineage", Column::categorical(&lineage)).unwrap();
    cells.write(bench.path(CELLS), Compression::None).unwrap();
}

/// Made-up cells with proteins under the names of the real pair: the second file has fewer.
fn stand_in_with_proteins(bench: &Bench) {
    let pair = [(CITE[0], "pbmc5k", &PROTEINS[..]), (CITE[1], "pbmc10k", &PROTEINS[..5])];
    for (file, batch, proteins) in pair {
        bench.run(&["generate", "--batches", batch, "--n-cells", "60", "--n-genes", "100", "--out", file]);
        let mut cells = AnnData::read(bench.path(file)).unwrap();
        name_strongest(&mut cells, &["CD3D", "LYZ", "MS4A1"]);
        let mut counts = DataFrame::new(cells.obs_names().to_vec());
        for (at, protein) in proteins.iter().enumerate() {
            let count = |cell: usize| (3 + (cell * 7 + at * 11) % 17) as f32;
            counts.insert(*protein, (0..cells.n_obs()).map(count).collect::<Vec<f32>>()).unwrap();
        }
        cells.obsm.insert("protein_expression".to_owned(), Element::Frame(counts));
        cells.write(bench.path(file), Compression::None).unwrap();
    }
}

/// Made-up cells of two conditions under the name of the real file, with its cell types.
fn stand_in_stimulated(bench: &Bench) {
    let conditions = "control,stimulated";
    bench.run(&["generate", "--batches", conditions, "--n-cells", "60", "--n-genes", "150", "--out", KANG]);
    let mut cells = AnnData::read(bench.path(KANG)).unwrap();
    let condition = cells.obs.column("batch").unwrap().clone();
    cells.obs.insert("condition", condition).unwrap();
    let types = ["B cells", "CD14+ Monocytes", "CD4 T cells", "CD8 T cells", "FCGR3A+ Monocytes"];
    let types: Vec<&str> = (0..cells.n_obs()).map(|cell| types[cell % types.len()]).collect();
    cells.obs.insert("cell_type", Column::categorical(&types)).unwrap();
    cells.write(bench.path(KANG), Compression::None).unwrap();
    let set = |name: &str, genes: std::ops::Range<usize>| {
        let genes: Vec<String> = genes.map(|gene| format!("GENE{gene:05}")).collect();
        format!("REACTOME_{name}\tna\t{}\n", genes.join("\t"))
    };
    let sets = [set("INTERFERON_SIGNALING", 1..60), set("CYTOKINE_SIGNALING_IN_IMMUNE_SYSTEM", 30..150)];
    std::fs::write(bench.path(GENE_SETS), sets.concat()).unwrap();
}

/// Made-up cells of six donors of two species under the name of the real file, with its cell types.
fn stand_in_islets(bench: &Bench) {
    let donors = "human1,human2,human3,human4,mouse1,mouse2";
    bench.run(&["generate", "--batches", donors, "--n-cells", "40", "--n-genes", "120", "--out", ISLETS]);
    let mut cells = AnnData::read(bench.path(ISLETS)).unwrap();
    let donor = cells.obs.column("batch").unwrap().clone();
    let is_mouse = |name: &Option<String>| name.as_deref().is_some_and(|name| name.starts_with("mouse"));
    let species: Vec<&str> =
        donor.to_strings().iter().map(|name| if is_mouse(name) { "mouse" } else { "human" }).collect();
    cells.obs.insert("species", Column::categorical(&species)).unwrap();
    cells.obs.insert("donor", donor).unwrap();
    let types = ["activated_stellate", "alpha", "beta", "delta", "macrophage"];
    let types: Vec<&str> = (0..cells.n_obs()).map(|cell| types[cell % types.len()]).collect();
    cells.obs.insert("cell_type", Column::categorical(&types)).unwrap();
    cells.write(bench.path(ISLETS), Compression::None).unwrap();
}

/// Made-up sections under the name of the real file.
fn stand_in_spatial(bench: &Bench) {
    let sections = "section0,section1,section2";
    let size = ["--n-cells", "150", "--n-genes", "40", "--spatial", "--out", SECTIONS];
    bench.run(&[&["generate", "--batches", sections], &size[..]].concat());
    let mut cells = AnnData::read(bench.path(SECTIONS)).unwrap();
    let section = cells.obs.column("batch").unwrap().clone();
    cells.obs.insert("section", section).unwrap();
    cells.write(bench.path(SECTIONS), Compression::None).unwrap();
}

/// Made-up T cells under the name of the real file: each has a receptor of its own but for pairs, and some have no alpha chain.
fn stand_in_tcells(bench: &Bench) {
    bench.run(&["generate", "--batches", "P17,P18,P19,P20", "--n-cells", "40", "--n-genes", "60", "--out", TCELLS]);
    let mut cells = AnnData::read(bench.path(TCELLS)).unwrap();
    let donor = cells.obs.column("batch").unwrap().clone();
    cells.obs.insert("donor", donor).unwrap();
    let n = cells.n_obs();
    let letters = |cell: usize| [cell / 50 % 5, cell / 10 % 5, cell / 2 % 5].map(|at| ['A', 'G', 'N', 'R', 'T'][at]);
    let sequence = |start: &str, cell: usize| format!("{start}{}F", letters(cell).iter().collect::<String>());
    let alpha = |cell: usize| if cell % 9 == 8 { String::new() } else { sequence("CAV", cell) };
    cells.obs.insert("TRA_cdr3", (0..n).map(alpha).collect::<Vec<_>>()).unwrap();
    cells.obs.insert("TRB_cdr3", (0..n).map(|cell| sequence("CASS", cell)).collect::<Vec<_>>()).unwrap();
    let source: Vec<&str> = (0..n).map(|cell| ["blood", "lung"][cell % 2]).collect();
    cells.obs.insert("source", Column::categorical(&source)).unwrap();
    cells.write(bench.path(TCELLS), Compression::None).unwrap();
}

/// Gives names to the genes with the most counts: no filter takes them.
fn name_strongest(cells: &mut AnnData, names: &[&str]) {
    let counts = cells.matrix(None).unwrap().to_csr().unwrap();
    let mut sums = vec![0.0; counts.n_cols()];
    counts.indices().iter().zip(counts.data()).for_each(|(&gene, &count)| sums[gene as usize] += count);
    let mut order: Vec<usize> = (0..sums.len()).collect();
    order.sort_by(|&a, &b| sums[b].total_cmp(&sums[a]));
    let mut genes = cells.var_names().to_vec();
    order.iter().zip(names).for_each(|(&gene, name)| genes[gene] = (*name).to_owned());
    cells.var.rename_rows(genes).unwrap();
}

const CELLS: &str = "pbmc_5batch.h5ad";
const ISLETS: &str = "pancreas_human_mouse.h5ad";
const SECTIONS: &str = "spatial_starmap.h5ad";
const TCELLS: &str = "tcr_lung_blood.h5ad";
const KANG: &str = "kang_ifnb_donor101.h5ad";
const GENE_SETS: &str = "reactome_v7.5.1.symbols.gmt";
const CITE: [&str; 2] = ["cite_pbmc5k.h5ad", "cite_pbmc10k.h5ad"];
/// The proteins that the page names; the last is in the first file only.
const PROTEINS: [&str; 6] = ["CD3", "CD4", "CD14", "CD19", "CD56", "CD20"];

#[test]
fn tutorials_run_as_they_are_written() {
    // `make tutorials` sets it to 1, or to the number of one page.
    let on_real_cells = std::env::var("ARCHIPELAGO_TUTORIALS").ok();
    for tutorial in Tutorial::all() {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        match &on_real_cells {
            Some(only) if only != "1" && !tutorial.name.starts_with(only.as_str()) => continue,
            Some(_) => {
                real_cells(&bench);
                tutorial.run(&bench, |_| {});
            }
            None => {
                stand_in(&bench);
                stand_in_with_proteins(&bench);
                stand_in_stimulated(&bench);
                stand_in_islets(&bench);
                stand_in_spatial(&bench);
                stand_in_tcells(&bench);
                tutorial.run(&bench, shorter);
            }
        }
        for picture in &tutorial.pictures {
            let (made, kept) = (bench.path(&tutorial.source_of(picture)), folder().join("img").join(picture));
            assert!(made.exists(), "{}: no command writes {}", tutorial.name, made.display());
            if on_real_cells.is_some() {
                std::fs::create_dir_all(folder().join("img")).unwrap();
                std::fs::copy(made, &kept).unwrap();
            }
            assert!(kept.exists(), "{}: {picture} is not there; run `make tutorials`", tutorial.name);
        }
    }
}

fn real_cells(bench: &Bench) {
    let shared = std::env::var_os("ARCHIPELAGO_SHARED").map(PathBuf::from);
    let data = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared")).join("data");
    for file in [CELLS, KANG, GENE_SETS, ISLETS, CITE[0], CITE[1], SECTIONS, TCELLS] {
        std::fs::copy(data.join(file), bench.path(file)).unwrap();
    }
}

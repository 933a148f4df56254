//! What every command that writes promises: its inputs stay as they are, nothing that it does not understand is lost, results that
//! exist are replaced with `--overwrite` only, and a new file takes the place of an old one when it is whole.
//!
//! The commands are those of the command line itself: one that is new has to say here whether it writes, and how.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use archipelago_anndata::{AnnData, Array, Compression, Csr, DataFrame, MuData};
use archipelago_common::reference_dir::ReferenceDir;
use archipelago_pack::{Card, Contents};
use archipelago_worker::cli;
use clap::Command;

use super::Bench;

/// What a command does to files.
enum Does {
    /// Nothing, or what another test is about (a server's state).
    ReadsOnly,
    /// Writes one result: the arguments without its path, the flag that takes the path, and the result's name.
    Writes(&'static str, &'static str, &'static str),
    /// The same with everything that a file of cells holds.
    WritesCells(&'static str, &'static str, &'static str),
}

use Does::{ReadsOnly, Writes, WritesCells};

const COMMANDS: [(&str, Does); 88] = [
    ("train", Writes("cells.h5ad --batches a,b --epochs 1 --n-hidden 8 --n-latent 3", "--out", "trained")),
    (
        "search",
        Writes("logged.h5ad --model mvtcr --variant rna --batches a,b --epochs 1 --trials 1", "--out", "searched"),
    ),
    ("map", WritesCells("reference cells.h5ad --batches c --epochs 1", "--out", "mapped-again")),
    ("unpack", Writes("plain.zip", "--out", "unpacked")),
    ("aggregate", Writes("plain cells.h5ad --batches a,b", "--out", "aggregated")),
    ("latent", WritesCells("reference cells.h5ad --batches a,b", "--out", "latent.h5ad")),
    ("predict", WritesCells("reference cells.h5ad --batches a,b", "--out", "predicted.h5ad")),
    ("results expression", Writes("reference cells.h5ad --batches a", "--out", "expression.h5ad")),
    ("results fit", Writes("reference cells.h5ad --batches a --marginal-samples 2", "--out", "fit.csv")),
    ("results predictive", Writes("reference cells.h5ad --batches a", "--out", "predictive.h5ad")),
    ("results library", Writes("reference cells.h5ad --batches a", "--out", "library.csv")),
    ("results correlation", Writes("reference cells.h5ad --batches a --n-samples 2", "--out", "correlation.csv")),
    (
        "results differential",
        Writes("reference cells.h5ad --batches a --groupby cell_type --n-draws 20", "--out", "differential.csv"),
    ),
    ("results questions", ReadsOnly),
    ("results minified", Writes("reference cells.h5ad --batches a", "--out", "minified.h5ad")),
    ("results proteins", WritesCells("proteins cite.h5ad --batches a,b --obsm-key imputed", "--out", "proteins.h5ad")),
    (
        "results remove-batch",
        WritesCells("scgen logged.h5ad --batches a,b --obsm-key corrected", "--out", "corrected.h5ad"),
    ),
    (
        "results predict-perturbation",
        WritesCells(
            "scgen logged.h5ad --batches a,b --control a --stimulated b --obsm-key stimulated",
            "--out",
            "stimulated.h5ad",
        ),
    ),
    ("results label-means", Writes("scgen", "--out", "means.csv")),
    ("results terms", Writes("terms", "--out", "terms.csv")),
    ("results term-genes", Writes("terms --term ODD", "--out", "genes.csv")),
    ("results term-sets", Writes("terms", "--out", "sets")),
    ("results term-overlap", Writes("terms", "--out", "overlap.h5ad")),
    ("results term-scores", WritesCells("terms cells.h5ad --batches a --obsm-key scores", "--out", "scores.h5ad")),
    ("results enrich", Writes("terms cells.h5ad --batches a --groups cell_type --n-sample 20", "--out", "factors.csv")),
    ("results classify", WritesCells("scpoli cells.h5ad --batches a,b", "--out", "classified.h5ad")),
    ("results prototypes", Writes("scpoli", "--out", "prototypes.h5ad")),
    (
        "results sample-embeddings",
        Writes("scpoli cells.h5ad --batches a,b --covariates cell_type", "--out", "samples.h5ad"),
    ),
    ("results clusters", WritesCells("scpoli cells.h5ad --batches a,b", "--out", "clustered.h5ad")),
    (
        "results add-cell-type",
        Writes("scpoli cells.h5ad --batches a,b --name new --clusters 0", "--out", "new.safetensors"),
    ),
    ("results modalities", Writes("tcells tcells.h5ad --batches a,b", "--out", "modalities.h5ad")),
    ("results amino-acids", Writes("tcells tcells.h5ad --batches a,b", "--out", "amino-acids.csv")),
    ("results impute", WritesCells("modalities cite.h5ad --batches a,b --obsm-key imputed", "--out", "imputed.h5ad")),
    ("results modality-latent", WritesCells("modalities cite.h5ad --batches a,b", "--out", "by-modality.h5ad")),
    ("import", Writes("exported", "--out", "imported")),
    ("export", Writes("reference", "--out", "exported-again")),
    ("inspect", ReadsOnly),
    ("preprocess", WritesCells("cells.h5ad --min-genes 1 --normalize", "--out", "clean.h5ad")),
    ("concat", Writes("cells.h5ad other.h5ad --index-unique", "--out", "both.h5ad")),
    ("organize", Writes("rna=cells.h5ad pca=cells.h5ad@obsm/X_pca", "--out", "organized.h5mu")),
    ("obs", WritesCells("cells.h5ad --set study=one", "--out", "edited.h5ad")),
    ("subset", WritesCells("cells.h5ad --obs batch=a,b", "--out", "some.h5ad")),
    (
        "receptors",
        WritesCells("cells.h5ad --receptor obs/cell_type --receptor obs/donor --keep-all", "--out", "clones.h5ad"),
    ),
    ("pca", WritesCells("cells.h5ad --n-comps 4", "--out", "pca.h5ad")),
    ("neighbors", WritesCells("cells.h5ad --n-neighbors 5", "--out", "neighbors.h5ad")),
    ("umap", WritesCells("cells.h5ad --maxiter 5", "--out", "umap.h5ad")),
    ("tsne", WritesCells("cells.h5ad --maxiter 5", "--out", "tsne.h5ad")),
    ("leiden", WritesCells("cells.h5ad", "--out", "leiden.h5ad")),
    ("transfer", WritesCells("cells.h5ad cells.h5ad --labels-key cell_type --n-neighbors 5", "--out", "labelled.h5ad")),
    (
        "tree learn",
        Writes(
            "cells.h5ad --labels-key cell_type --order a,b --append-batch --min-cells 2 --no-reconstruction",
            "--out",
            "grown",
        ),
    ),
    ("tree update", Writes("tree cells.h5ad --order c --min-cells 2", "--out", "larger")),
    ("tree predict", WritesCells("tree cells.h5ad", "--out", "placed.h5ad")),
    ("tree show", Writes("tree", "--picture", "tree.svg")),
    ("tree edit", Writes("tree --add new", "--out", "edited.json")),
    ("tree import", Writes("upstream.pickle --use-rep X_pca", "--out", "from-upstream")),
    ("tree share", Writes("reference", "--out", "atlas")),
    ("space train", Writes("logged.h5ad --batches a --network-epochs 2", "--out", "sections-again")),
    ("space map", WritesCells("sections logged.h5ad", "--out", "mapped-in-space.h5ad")),
    ("space show", Writes("sections", "--picture", "sections.svg")),
    ("space import", Writes("saved-sections --cells logged.h5ad", "--out", "imported-sections")),
    ("space export", Writes("sections", "--out", "exported-sections")),
    ("metrics", Writes("cells.h5ad --labels-key cell_type", "--out", "figures.json")),
    ("plot embedding", Writes("cells.h5ad --basis X_pca --color cell_type", "--out", "embedding.png")),
    ("plot violin", Writes("cells.h5ad --values GENE00001 --groupby cell_type", "--out", "violin.svg")),
    ("plot dots", Writes("cells.h5ad --genes GENE00001 --groupby cell_type", "--out", "dots.svg")),
    ("plot confusion", Writes("cells.h5ad --observed cell_type --predicted donor", "--out", "confusion.png")),
    ("plot sankey", Writes("cells.h5ad --observed cell_type --predicted donor", "--out", "sankey.svg")),
    ("plot loss", Writes("reference", "--out", "loss.png")),
    ("plot means", Writes("logged.h5ad logged.h5ad --control logged.h5ad", "--out", "means.svg")),
    ("plot factors", Writes("factors-there.h5ad", "--out", "factors.png")),
    ("report", Writes("mapped", "--out", "report.html")),
    ("models", ReadsOnly),
    ("generate", Writes("--n-cells 5 --n-genes 5", "--out", "generated.h5ad")),
    ("join", ReadsOnly),
    ("serve", ReadsOnly),
    ("tasks", ReadsOnly),
    ("approve", ReadsOnly),
    ("decline", ReadsOnly),
    ("doctor", ReadsOnly),
    ("audit", ReadsOnly),
    ("ledger", ReadsOnly),
    ("names", ReadsOnly),
    ("completions", ReadsOnly),
    // Further results of commands above.
    ("report", Writes("mapped", "", "mapped/report.html")),
    (
        "preprocess",
        Writes("cells.h5ad --min-genes 1 --out recipe-s-cells.h5ad --overwrite", "--write-recipe", "recipe.toml"),
    ),
    ("latent", Writes("reference cells.h5ad --batches a,b", "--out", "latent.csv")),
    ("predict", Writes("reference cells.h5ad --batches a,b", "--out", "predicted.csv")),
    ("results proteins", Writes("proteins cite.h5ad --batches a,b", "--out", "proteins.csv")),
];

/// The bench with references, mapped cells and an exported model, and with things in `cells.h5ad` that nobody here understands.
fn prepared() -> Bench {
    let bench = Bench::new();
    let mut cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let n = cells.n_obs();
    let pca = (0..3 * n).map(|at| ((at * 7919) % 101) as f32 / 10.0).collect::<Vec<_>>();
    cells.obsm.insert("X_pca".into(), Array::matrix(n, 3, pca).unwrap().into());
    let place = |at: usize| ((at / 2 % 3) * 50 + at / 6 % 5) as f32 * (1 + at % 2) as f32 + (at / 30 % 7) as f32;
    let places = (0..2 * n).map(place).collect::<Vec<_>>();
    cells.obsm.insert("spatial".into(), Array::matrix(n, 2, places).unwrap().into());
    cells.write(bench.path("cells.h5ad"), Compression::None).unwrap();
    add_foreign(&bench.path("cells.h5ad"));
    fs::copy(bench.path("cells.h5ad"), bench.path("other.h5ad")).unwrap();
    super::proteins::add_proteins(&bench);
    let run = |args: &str| bench.run(&args.split(' ').collect::<Vec<_>>());
    run(
        "train cells.h5ad --batches a,b --model scanvi --labels-key cell_type --epochs 1 --n-hidden 8 --n-latent 3 --out reference",
    );
    run("train cells.h5ad --batches a,b --epochs 1 --n-hidden 8 --n-latent 3 --out plain");
    let (plain, card) = (ReferenceDir::open(&bench.path("plain")).unwrap(), Card::default());
    let (name, dir) = ("plain".parse().unwrap(), bench.path("plain"));
    let contents = Contents { name: &name, reference: &plain, dir: &dir, embedding: None, card: &card };
    archipelago_pack::write::<archipelago_pack::Error>(&bench.path("plain.zip"), &contents, 0, |_| Ok(None)).unwrap();
    run(
        "train cite.h5ad --batches a,b --model totalvi --protein-obsm-key protein_expression --epochs 1 --n-hidden 8 --n-latent 3 \
         --out proteins",
    );
    run(
        "train cite.h5ad --batches a,b --model multigrate --modalities adt --losses nb --field adt=obsm/protein_expression \
         --epochs 1 --n-hidden-encoders 8 --n-hidden-decoders 8 --z-dim 3 --out modalities",
    );
    run("preprocess cells.h5ad --normalize --out logged.h5ad");
    run("space train logged.h5ad --batches a,b --network-epochs 2 --out sections");
    run("space export sections --out saved-sections");
    run("train logged.h5ad --batches a,b --model scgen --labels-key cell_type --epochs 1 --out scgen");
    super::terms::write_sets(&bench);
    run(
        "train cells.h5ad --batches a,b --model expimap --gene-sets sets.gmt --hidden-layer-sizes 8 --epochs 1 --out terms",
    );
    run("results enrich terms cells.h5ad --batches a --groups cell_type --n-sample 20 --out factors-there.h5ad");
    run("train cells.h5ad --batches a,b --model scpoli --labels-key cell_type --epochs 2 --out scpoli");
    super::receptors::write_reference(&bench);
    run("map reference cells.h5ad --batches c --epochs 1 --out mapped");
    run("export reference --out exported");
    run(
        "tree learn cells.h5ad --labels-key cell_type --order a,b --append-batch --min-cells 2 --no-reconstruction --out tree",
    );
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/treearches/pickled_knn.pickle");
    fs::copy(golden, bench.path("upstream.pickle")).unwrap();
    bench
}

/// Puts a group of another program, and a complex number in uns, into a file.
fn add_foreign(path: &Path) {
    let file = hdf5::File::open_rw(path).unwrap();
    file.create_group("somebody-s-own")
        .unwrap()
        .new_dataset::<i64>()
        .create("answer")
        .unwrap()
        .write_scalar(&42_i64)
        .unwrap();
    let uns = file.group("uns").unwrap();
    let opaque = uns.new_dataset_builder().empty_as(complex()).shape([2_usize]);
    opaque.create("eigenvalues").unwrap();
    file.close().unwrap();
}

fn complex() -> hdf5::types::TypeDescriptor {
    use hdf5::types::{CompoundField, CompoundType, FloatSize, TypeDescriptor};
    let float = TypeDescriptor::Float(FloatSize::U8);
    let fields = vec![CompoundField::new("r", float.clone(), 0, 0), CompoundField::new("i", float, 8, 1)];
    TypeDescriptor::Compound(CompoundType { fields, size: 16 })
}

#[track_caller]
fn check_foreign(path: &Path) {
    let file = hdf5::File::open(path).unwrap();
    let answer = file.dataset("somebody-s-own/answer").map(|answer| answer.read_scalar::<i64>().unwrap());
    assert_eq!(answer.ok(), Some(42), "{}", path.display());
    assert!(file.link_exists("uns/eigenvalues"), "{}", path.display());
}

/// Bytes of every file below a folder, by path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    found
}

fn leaves(command: &Command, name: &str, found: &mut Vec<(String, bool)>) {
    for inner in command.get_subcommands() {
        let name = format!("{name} {}", inner.get_name()).trim().to_owned();
        match inner.get_subcommands().next() {
            Some(_) => leaves(inner, &name, found),
            None => {
                let is_result = |id: &str| cli::RESULTS.contains(&id) || id == "in_place";
                let writes = inner.get_arguments().any(|arg| is_result(arg.get_id().as_str()));
                found.push((name, writes));
            }
        }
    }
}

#[test]
fn every_command_says_whether_it_writes() {
    let mut found = Vec::new();
    leaves(&cli::command(), "", &mut found);
    assert!(found.len() > 30, "{found:?}");
    for (name, has_result) in &found {
        let known = COMMANDS.iter().find(|(known, _)| known == name);
        let (_, does) = known.unwrap_or_else(|| panic!("`{name}` is new: say in `COMMANDS` what it does to files"));
        assert!(
            !(*has_result && matches!(does, ReadsOnly)),
            "`{name}` has a flag for a result and is said to read only"
        );
    }
    for (name, _) in &COMMANDS {
        assert!(found.iter().any(|(known, _)| known == name), "`{name}` is gone");
    }
}

/// Runs a share of the commands: every second, or the others.
fn check_share(first: usize) {
    let bench = prepared();
    for (name, does) in COMMANDS.iter().skip(first).step_by(2) {
        let (args, flag, result, keeps) = match does {
            ReadsOnly => continue,
            Writes(args, flag, result) => (args, flag, result, false),
            WritesCells(args, flag, result) => (args, flag, result, true),
        };
        let line = match *flag {
            "" => format!("{name} {args}"),
            flag => format!("{name} {args} {flag} {result}"),
        };
        let args: Vec<&str> = line.split(' ').collect();
        let before = files(bench.dir.path());
        bench.run(&args);
        let path = bench.path(result);
        let after = files(bench.dir.path());
        for (file, bytes) in &before {
            assert!(after.get(file) == Some(bytes) || file.ends_with("recipe-s-cells.h5ad"), "`{line}` changed {file}");
        }
        let new: Vec<&String> = after.keys().filter(|file| !before.contains_key(*file)).collect();
        for file in &new {
            assert!(
                file.starts_with(&*path.display().to_string()) || file.contains("recipe-s"),
                "`{line}` left {file}"
            );
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
        if path.is_dir() {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
        }
        let cells = if path.is_dir() { path.join("mapped.h5ad") } else { path.clone() };
        if keeps {
            check_foreign(&cells);
        }
        if name.starts_with("generate") || !args.contains(&"--overwrite") {
            let said = bench.fail(2, &args);
            assert!(said.contains("exists already") && said.contains("hint: add `--overwrite`"), "`{line}`: {said}");
            assert_eq!(files(bench.dir.path()), after, "`{line}` was refused");
        }
        let written = new.first().unwrap_or_else(|| panic!("`{line}` wrote nothing"));
        let inode = fs::metadata(written).unwrap().ino();
        let args = if args.contains(&"--overwrite") { args } else { [&args[..], &["--overwrite"]].concat() };
        bench.run(&args);
        assert_ne!(fs::metadata(written).unwrap().ino(), inode, "`{line}` wrote into the old file");
        assert_eq!(files(bench.dir.path()).keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "`{line}`");
    }
}

#[test]
fn what_a_command_writes_takes_nothing_from_anybody() {
    check_share(0);
}

#[test]
fn what_the_other_commands_write_takes_nothing_from_anybody() {
    check_share(1);
}

/// Leaf commands that can write the file that they read.
fn in_place() -> Vec<(&'static str, String)> {
    let root = cli::command();
    let mut found = Vec::new();
    leaves(&root, "", &mut found);
    let mut commands = Vec::new();
    for (name, _) in found {
        let leaf = name.split(' ').fold(&root, |command, part| command.find_subcommand(part).unwrap());
        if leaf.get_arguments().any(|arg| arg.get_id() == "in_place") {
            let (known, does) = COMMANDS.iter().find(|(known, _)| *known == name).unwrap();
            let WritesCells(args, ..) = does else { panic!("`{name}` writes cells in place") };
            commands.push((*known, (*args).to_owned()));
        }
    }
    assert!(commands.len() > 5, "{commands:?}");
    commands
}

#[test]
fn a_file_that_is_written_in_place_keeps_what_is_not_understood() {
    let bench = prepared();
    let original = fs::read(bench.path("cells.h5ad")).unwrap();
    for (name, args) in in_place() {
        let line = format!("{name} {} --in-place", args.replace("cells.h5ad", "own.h5ad"));
        fs::write(bench.path("own.h5ad"), &original).unwrap();
        fs::set_permissions(bench.path("own.h5ad"), fs::Permissions::from_mode(0o640)).unwrap();
        bench.run(&line.split(' ').collect::<Vec<_>>());
        check_foreign(&bench.path("own.h5ad"));
        assert_eq!(fs::metadata(bench.path("own.h5ad")).unwrap().permissions().mode() & 0o777, 0o640, "{line}");
    }
}

#[test]
fn modalities_stay_in_their_file_whatever_is_done_to_it() {
    let bench = Bench::new();
    let cells = AnnData::read(bench.path("cells.h5ad")).unwrap();
    let proteins = Csr::from_dense(cells.n_obs(), 2, &vec![1.0; 2 * cells.n_obs()]).unwrap();
    let proteins =
        AnnData::new(proteins, DataFrame::new(cells.obs_names().to_vec()), DataFrame::new(["CD3", "CD4"])).unwrap();
    let both = MuData { modalities: [("rna".to_owned(), cells.clone()), ("prot".to_owned(), proteins)].into() };
    both.write(bench.path("joint.h5mu"), Compression::None).unwrap();
    let mut joint = AnnData::read(bench.path("joint.h5mu")).unwrap();
    let n = joint.n_obs();
    for name in ["X_pca", "X_mofa"] {
        let values: Vec<f32> = (0..3 * n).map(|at| ((at * 7919) % 101) as f32).collect();
        joint.obsm.insert(name.into(), Array::matrix(n, 3, values).unwrap().into());
    }
    for column in ["batch", "cell_type"] {
        joint.obs.insert(column, cells.obs.column(column).unwrap().clone()).unwrap();
    }
    joint.write(bench.path("joint.h5mu"), Compression::None).unwrap();
    let original = fs::read(bench.path("joint.h5mu")).unwrap();
    let mut n_written = 0;
    for (name, args) in in_place() {
        let args = args.replace("cells.h5ad", "own.h5mu");
        for (to, path) in [("--in-place", "own.h5mu"), ("--overwrite --out copy.h5mu", "copy.h5mu")] {
            fs::write(bench.path("own.h5mu"), &original).unwrap();
            let line = format!("{name} {args} {to}");
            let done = bench.command(&line.split(' ').collect::<Vec<_>>()).output().unwrap();
            match done.status.success() {
                true => {
                    n_written += 1;
                    assert_eq!(MuData::read(bench.path(path)).unwrap(), both, "`{line}`");
                }
                false => {
                    assert!(!done.stderr.is_empty(), "`{line}`");
                    assert!(
                        fs::read(bench.path("own.h5mu")).unwrap() == original,
                        "`{line}` failed and changed the file"
                    );
                }
            }
        }
    }
    assert!(n_written >= 8, "{n_written} commands could work on what is joint");
    let said = bench.fail(1, &["subset", "joint.h5mu", "--obs", "batch=a", "--out", "some.h5mu"]);
    assert!(said.contains("modalities `prot`, `rna`") && said.contains("hint:"), "{said}");
    let said = bench.fail(1, &["concat", "joint.h5mu", "joint.h5mu", "--index-unique", "--out", "two.h5mu"]);
    assert!(said.contains("modalities"), "{said}");
}

#[test]
fn an_unfinished_run_is_taken_up_and_a_finished_one_is_not_touched() {
    let bench = Bench::new();
    fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&super::TRAIN[..], more].concat()
    }
    bench.run(&train(&[]));
    let finished = files(&bench.path("reference"));
    bench.fail(2, &train(&["--seed", "1"]));
    assert_eq!(files(&bench.path("reference")), finished);
    // As a run leaves it that was killed between its results and its summary.
    fs::remove_file(bench.path("reference/summary.json")).unwrap();
    bench.fail(2, &train(&[]));
    fs::write(bench.path("reference/training.checkpoint"), "").unwrap();
    let said = bench.fail(1, &train(&[]));
    assert!(said.contains("training.checkpoint"), "taken up, and found to be damaged: {said}");
    fs::remove_file(bench.path("reference/training.checkpoint")).unwrap();
    bench.run(&train(&["--overwrite"]));
    let again = files(&bench.path("reference"));
    let base = |files: &BTreeMap<String, Vec<u8>>| {
        files.iter().find(|(name, _)| name.ends_with("base.safetensors")).unwrap().1.clone()
    };
    assert!(base(&again) == base(&finished), "the same settings give the same bits");
}

//! What commands write opens in every anndata that people have: 0.8 to the newest, each in a virtual environment of its own.
//!
//! Environments are made once, in the user's cache; where that cannot be done a test says so and is skipped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use archipelago_anndata::{AnnData, Compression};

use super::Bench;

/// The Python of an environment with these packages; `None`, with a line that says why, where there is none.
pub(super) fn python(name: &str, interpreters: &[&str], packages: &[&str]) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("archipelago");
    let folder = cache.join(format!("venv-{name}"));
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    if ready.exists() {
        return Some(python);
    }
    let made = interpreters.iter().any(|interpreter| done(Command::new(interpreter).args(["-m", "venv"]).arg(&folder)));
    let install = ["-m", "pip", "install", "--quiet", "--retries", "1", "--only-binary", ":all:"];
    if made && done(Command::new(&python).args(install).args(packages)) {
        fs::write(&ready, "").unwrap();
        return Some(python);
    }
    let _ = fs::remove_dir_all(&folder);
    skipped(&format!("no virtual environment with {} can be made in {}", packages.join(" "), cache.display()));
    None
}

/// Whether a program ends well within its time.
fn done(command: &mut Command) -> bool {
    let Ok(mut child) = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn() else {
        return false;
    };
    let started = std::time::Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if started.elapsed() < PATIENCE => std::thread::park_timeout(Duration::from_millis(100)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

/// A slow network is no reason to fail.
const PATIENCE: Duration = Duration::from_secs(240);

#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// One file of each command that writes cells, and their shapes.
fn written() -> (Bench, Vec<(String, [usize; 2])>) {
    let bench = Bench::with_reference();
    let run = |args: &str| bench.run(&args.split(' ').collect::<Vec<_>>());
    run("preprocess cells.h5ad --min-genes 1 --normalize --n-top-genes 30 --out clean.h5ad");
    run("pca clean.h5ad --n-comps 5 --out pca.h5ad");
    run("neighbors pca.h5ad --n-neighbors 8 --out neighbors.h5ad");
    run("umap neighbors.h5ad --maxiter 5 --out umap.h5ad");
    run("leiden umap.h5ad --out leiden.h5ad");
    run("tsne leiden.h5ad --maxiter 5 --out tsne.h5ad");
    run("map reference clean.h5ad --batches c --epochs 1 --device cpu --out mapped");
    run("latent reference clean.h5ad --batches a,b --device cpu --out latent.h5ad");
    run("transfer latent.h5ad mapped/mapped.h5ad --labels-key cell_type --n-neighbors 5 --out labelled.h5ad");
    run("results minified reference cells.h5ad --batches a,b --out minified.h5ad");
    run("results expression reference cells.h5ad --batches a --out expression.h5ad");
    run("subset tsne.h5ad --obs batch=a --out some.h5ad");
    let mut other = AnnData::read(bench.path("clean.h5ad")).unwrap();
    other.obs.remove("total_counts");
    other.write(bench.path("other.h5ad"), Compression::None).unwrap();
    run("concat clean.h5ad other.h5ad --join outer --label lab --index-unique --out both.h5ad");
    let names =
        ["clean", "pca", "neighbors", "umap", "leiden", "tsne", "mapped/mapped", "latent", "labelled", "minified"];
    let names = names.into_iter().chain(["expression", "some", "both"]).map(|name| format!("{name}.h5ad"));
    let shape = |name: &str| {
        let adata = AnnData::read(bench.path(name)).unwrap();
        [adata.n_obs(), adata.n_vars()]
    };
    let files = names.map(|name| (name.clone(), shape(&name))).collect();
    (bench, files)
}

fn check(name: &str, interpreters: &[&str], packages: &[&str]) {
    let Some(python) = python(name, interpreters, packages) else { return };
    let (bench, files) = written();
    for (file, [n_obs, n_vars]) in files {
        let run = Command::new(&python).args(["-c", OPEN]).arg(bench.path(&file)).output().unwrap();
        let (said, shape) = (String::from_utf8_lossy(&run.stderr), String::from_utf8_lossy(&run.stdout));
        assert!(run.status.success(), "{name} cannot open {file}:\n{said}");
        assert_eq!(shape.trim(), format!("{n_obs} {n_vars}"), "{name} reads {file}");
    }
    assert!(Path::new(&python).exists());
}

/// Opens a file and looks at all of it.
const OPEN: &str =
    "import sys, anndata; a = anndata.read_h5ad(sys.argv[1]); str(a.uns); a.obs.describe(); a.copy(); print(*a.shape)";

#[test]
fn anndata_0_8_opens_what_is_written() {
    let packages = ["anndata==0.8.0", "numpy<1.24", "pandas<2", "scipy<1.11", "h5py<3.11"];
    check("anndata-0.8", &["python3.10", "python3.9", "python3.11"], &packages);
}

#[test]
fn anndata_0_10_opens_what_is_written() {
    check("anndata-0.10", &["python3.11", "python3.10", "python3.12"], &["anndata==0.10.9", "numpy<2", "pandas<2.3"]);
}

#[test]
fn anndata_0_11_opens_what_is_written() {
    check("anndata-0.11", &["python3.11", "python3.12", "python3"], &["anndata==0.11.4", "numpy<2.3", "pandas<2.3"]);
}

#[test]
fn anndata_0_12_opens_what_is_written() {
    check("anndata-0.12", &["python3.11", "python3.12", "python3"], &["anndata==0.12.10", "pandas<3"]);
}

#[test]
fn the_newest_anndata_opens_what_is_written() {
    check("anndata-newest", &["python3.13", "python3.12", "python3.11", "python3"], &["anndata"]);
}

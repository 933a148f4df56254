//! What the terms of one site mean for the cells of another, measured on stimulated blood.

use std::path::{Path, PathBuf};

use archipelago_anndata::{AnnData, Column, Compression};
use archipelago_common::{ConditionKey, Section, part::Member, reference_dir::ReferenceDir};
use archipelago_worker::local;

use crate::Bench;

/// Half of the stimulated cells are north's, which adds three terms and contributes them, and half are south's, which does not.
#[test]
#[expect(clippy::print_stderr, reason = "figures for the page, and why a test is skipped")]
fn on_real_cells_terms_of_north_leave_souths_as_they_were() {
    let Some(bench) = bench() else {
        eprintln!("skipped: the cells are not there; set ARCHIPELAGO_SHARED to the folder with the shared data");
        return;
    };
    let epochs = std::env::var("ARCHIPELAGO_TERMS_EPOCHS").unwrap_or_else(|_| "10".to_owned());
    let sets = ["--gene-sets", "sets.gmt", "--set-min-genes", "12"];
    let options = ["--hidden-layer-sizes", "256,256,256", "--weight-decay", "0", "--epochs", &epochs];
    let cells = ["cells.h5ad", "--batch-key", "site", "--batches"];
    bench.run(
        &[&["train"], &cells[..], &["control", "--model", "expimap"], &sets, &options, &["--out", "reference"]]
            .concat(),
    );
    let map = |from: &str, site: &str, more: &[&str]| {
        let named = ["--owner", site, "--dataset", "pbmc", "--alpha-kl", "0.1", "--epochs", &epochs, "--out", site];
        bench.run(&[&["map", from], &cells[..], &[site], &named, more].concat());
    };
    map("reference", "north", &["--n-ext", "3", "--gamma-ext", "0.7"]);
    map("north", "south", &[]);

    // Two versions, and south's cells with north's terms as if they were its own.
    let [north, south] = ["north", "south"].map(|site| format!("{site}/pbmc/{site}").parse::<ConditionKey>().unwrap());
    let terms = local::read(&bench.path("north")).unwrap().remove(&north).unwrap();
    let dir = ReferenceDir::open(&bench.path("south")).unwrap();
    let (base, columns) = (dir.base().unwrap(), dir.columns().unwrap());
    let part = north.clone().in_section(Section::Part("terms".parse().unwrap()));
    ReferenceDir::write(&bench.path("without"), &base, &columns).unwrap();
    ReferenceDir::write_with_parts(
        &bench.path("with"),
        &base,
        &columns,
        &[(part, Member::Tensors(terms.clone()))].into(),
    )
    .unwrap();
    ReferenceDir::write(&bench.path("acting"), &base, &columns).unwrap();
    local::write(&bench.path("acting"), [(&south, &terms)].into_iter()).unwrap();

    let fit = |version: &str, site: &str| {
        let of_site = [site, "--owner", site, "--dataset", "pbmc", "--device", "cpu"];
        let shown = bench.run_json(&[&["results", "fit", version], &cells[..], &of_site].concat());
        ["elbo", "reconstruction"].map(|figure| shown[figure].as_f64().unwrap())
    };
    let latent = |version: &str, site: &str| -> Vec<Vec<f64>> {
        let of_site =
            [site, "--owner", site, "--dataset", "pbmc", "--engine", "autograd", "--out", "latent.csv", "--overwrite"];
        bench.run(&[&["latent", version], &cells[..], &of_site].concat());
        let text = std::fs::read_to_string(bench.path("latent.csv")).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let columns: Vec<usize> = lines
            .next()
            .unwrap()
            .iter()
            .enumerate()
            .filter(|(_, name)| name.starts_with("mean_"))
            .map(|(at, _)| at)
            .collect();
        lines.map(|line| columns.iter().map(|&at| line[at].parse().unwrap()).collect()).collect()
    };
    let (before, after) = (fit("without", "south"), fit("with", "south"));
    // The kernels know no new terms, and round otherwise than libtorch.
    assert!(
        (before[0] - after[0]).abs() < 1e-2,
        "north's terms describe south's cells otherwise: {before:?} and {after:?}"
    );
    let (places, more_places) = (latent("without", "south"), latent("with", "south"));
    let n_known = places[0].len();
    assert!(more_places.iter().all(|z| z.len() == n_known + 3), "the latent space has north's terms");
    assert!(places.iter().zip(&more_places).all(|(z, more)| *z == more[..n_known]), "south's cells have moved");
    let acting = fit("acting", "south");
    assert!(
        (before[0] - acting[0]).abs() > 0.01,
        "terms in the decoder that change nothing: {before:?} and {acting:?}"
    );
    let (own, lost) = (fit("with", "north"), fit("without", "north"));
    assert!(own[0] > lost[0], "north's cells are described best with its terms: {own:?} and {lost:?}");

    eprintln!(
        "south: ELBO {:.3} without and with north's terms, {:.3} were they to decode its cells",
        before[0], acting[0]
    );
    eprintln!("north: ELBO {:.3} with its terms, {:.3} without", own[0], lost[0]);
    let of_north = latent("with", "north");
    for term in n_known..n_known + 3 {
        let of = |cells: &[Vec<f64>]| {
            let mean = cells.iter().map(|z| z[term]).sum::<f64>() / cells.len() as f64;
            let square = cells.iter().map(|z| (z[term] - mean).powi(2)).sum::<f64>() / cells.len() as f64;
            (mean, square.sqrt())
        };
        let ((mean, sd), (other, other_sd)) = (of(&of_north), of(&more_places));
        eprintln!("term {}: north's cells {mean:.3} ± {sd:.3}, south's {other:.3} ± {other_sd:.3}", term - n_known);
    }
}

/// The cells with their sites, and the gene sets; nothing where they are not at hand.
fn bench() -> Option<Bench> {
    let shared = std::env::var_os("ARCHIPELAGO_SHARED").map(PathBuf::from);
    let data = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared")).join("data");
    let files = [data.join("kang_ifnb_donor101.h5ad"), data.join("reactome_v7.5.1.symbols.gmt")];
    if !files.iter().all(|file| file.is_file()) {
        return None;
    }
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let mut cells = AnnData::read(&files[0]).unwrap();
    let condition = cells.obs.column("condition").unwrap().to_strings();
    let mut n_stimulated = 0;
    let site = |condition: &Option<String>| match condition.as_deref() {
        Some("stimulated") => {
            n_stimulated += 1;
            if n_stimulated % 2 == 0 { "north" } else { "south" }
        }
        _ => "control",
    };
    let sites: Vec<&str> = condition.iter().map(site).collect();
    cells.obs.insert("site", Column::categorical(&sites)).unwrap();
    cells.write(bench.path("cells.h5ad"), Compression::None).unwrap();
    std::fs::copy(&files[1], bench.path("sets.gmt")).unwrap();
    Some(bench)
}

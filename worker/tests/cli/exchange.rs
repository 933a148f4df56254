//! Files of several modalities and of receptors, there and back: mudata and scirpy write what we read and read what we write, in a virtual
//! environment of their own. Where none can be made a test says so and is skipped.

use std::{collections::BTreeMap, path::Path, process::Command};

use archipelago_anndata::{AnnData, MuData};
use serde_json::Value;

use super::{Bench, proteins::add_proteins, versions::python};

const INTERPRETERS: [&str; 4] = ["python3.12", "python3.13", "python3.11", "python3"];

/// What a program says in JSON on its last line.
fn say(python: &Path, bench: &Bench, program: &str) -> Value {
    let run = Command::new(python).args(["-c", program]).current_dir(bench.dir.path()).output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{told}");
    serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{said}{told}"))
}

/// Cells with proteins as two modalities, by `organize`.
fn cite() -> Bench {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let sizes = ["--n-cells", "20", "--n-genes", "30", "--n-types", "3", "--out", "cells.h5ad"];
    bench.run(&[&["generate", "--batches", "a,b"], &sizes[..]].concat());
    add_proteins(&bench);
    bench.run(&["organize", "rna=cite.h5ad", "prot=cite.h5ad@obsm/protein_expression", "--out", "ours.h5mu"]);
    bench
}

/// Sums of a modality's cells, by name.
fn sums(mdata: &MuData, modality: &str) -> BTreeMap<String, f64> {
    let adata = &mdata.modalities[modality];
    let values = adata.matrix(None).unwrap().to_csr().unwrap().row_sums();
    adata.obs_names().iter().cloned().zip(values).collect()
}

fn same(theirs: &Value, ours: &BTreeMap<String, f64>) {
    let theirs: BTreeMap<String, f64> = serde_json::from_value(theirs.clone()).unwrap();
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    for (cell, sum) in ours {
        assert!((theirs[cell] - sum).abs() < 1e-3, "{cell}: {} for {sum}", theirs[cell]);
    }
}

/// Reads our modalities, and writes them with a sparse one more, of fewer cells in another order.
const MUDATA: &str = r#"
import json, anndata, mudata, numpy as np, scipy.sparse
try:
    mudata.set_options(pull_on_update=False)
except Exception:
    pass  # Older ones know no such option.
ours = mudata.read_h5mu("ours.h5mu")
sums = lambda a: dict(zip(a.obs_names, np.asarray(a.X.sum(axis=1), dtype=float).ravel()))
seen = {name: sums(a) for name, a in ours.mod.items()}
names = list(ours["rna"].obs_names)[::-1][:25]
peaks = scipy.sparse.random(25, 12, density=0.3, format="csr", random_state=0, dtype=np.float32)
atac = anndata.AnnData(peaks, obs={"open": np.arange(25.0)}, var={"chrom": ["chr1"] * 12})
atac.obs_names, atac.var_names = names, [f"peak{i}" for i in range(12)]
theirs = mudata.MuData({"rna": ours["rna"].copy(), "prot": ours["prot"].copy(), "atac": atac})
theirs.update()
theirs.write("theirs.h5mu")
print(json.dumps({"ours": seen, "atac": sums(atac), "n_obs": theirs.n_obs}))
"#;

fn modalities_go_there_and_back(name: &str, interpreters: &[&str], packages: &[&str]) {
    let Some(python) = python(name, interpreters, packages) else { return };
    let bench = cite();
    let seen = say(&python, &bench, MUDATA);
    let ours = MuData::read(bench.path("ours.h5mu")).unwrap();
    let theirs = MuData::read(bench.path("theirs.h5mu")).unwrap();
    for modality in ["rna", "prot"] {
        same(&seen["ours"][modality], &sums(&ours, modality));
        assert_eq!(sums(&theirs, modality), sums(&ours, modality), "{name}");
    }
    same(&seen["atac"], &sums(&theirs, "atac"));
    assert_eq!(theirs.modalities["atac"].obs.column("open").unwrap().to_f64().unwrap()[24], 24.0);
    // 15 cells lack peaks: the model takes them as they are.
    let small = ["--z-dim", "3", "--n-hidden-encoders", "8", "--n-hidden-decoders", "8", "--epochs", "1"];
    let fields = ["--field", "prot=mod/prot", "--field", "atac=mod/atac"];
    let train = ["train", "theirs.h5mu", "--model", "multigrate", "--modalities", "prot,atac", "--losses", "nb,nb,mse"];
    bench.run(&[&train[..], &fields, &small, &["--out", "reference"]].concat());
    bench.run(
        &[&["results", "modality-latent", "reference", "theirs.h5mu", "--out", "latent.h5ad"], &fields[..]].concat(),
    );
    let latent = AnnData::read(bench.path("latent.h5ad")).unwrap();
    let has_atac = latent.obs.column("has_atac").unwrap().to_f64().unwrap().iter().sum::<f64>();
    let with_peaks = sums(&theirs, "atac").values().filter(|&&sum| sum > 0.0).count();
    assert_eq!(has_atac as usize, with_peaks);
}

#[test]
fn the_newest_mudata_reads_and_writes_modalities() {
    modalities_go_there_and_back("scverse", &INTERPRETERS, &SCVERSE);
}

/// Of 2023: three years back.
#[test]
fn mudata_0_2_reads_and_writes_modalities() {
    let packages = ["mudata==0.2.3", "anndata==0.10.4", "numpy<2", "pandas<2.3"];
    modalities_go_there_and_back("mudata-0.2", &["python3.11", "python3.10", "python3.12"], &packages);
}

/// One of its requirements is built from source, which takes no compiler.
const SCVERSE: [&str; 4] = ["scirpy>=0.22", "mudata", "--no-binary", "airr"];

/// Contigs of twelve cells: both chains, one, none, two of a kind, one that is not productive, clones that share one chain.
const CONTIGS: &str = r#"
import json, warnings
warnings.filterwarnings("ignore")
import scirpy as ir
GENES = {"TRA": ("TRAV1", "TRAJ1"), "TRB": ("TRBV1", "TRBJ1")}
CELLS = [[("TRA", "CAVRF", 5), ("TRB", "CASSLF", 9)], [("TRA", "CAVRF", 2), ("TRB", "CASSLF", 3)], [("TRA", "CAVRF", 4), ("TRB", "CASRF", 1)],
         [("TRA", "CALF", 7)], [("TRB", "CASSGF", 7)], [], [("TRA", "CAGF", 1), ("TRA", "CANF", 8), ("TRB", "CASSQF", 2)],
         [("TRA", "CANF", 3), ("TRB", "CASSQF", 2)], [("TRA", "CALF", 3), ("TRB", "CASSLF", 4)], [("TRB", "CASSLF", 4), ("TRB", "CASSMF", 6)],
         [("TRA", "CAVRF", 6), ("TRB", "CASSLF", 1)], [("TRA", "CAKF", 2), ("TRB", "CASSKF", 2)]]
cells = []
for i, contigs in enumerate(CELLS):
    cell = ir.io.AirrCell(f"cell{i}")
    for k, (locus, sequence, n) in enumerate(contigs):
        chain = ir.io.AirrCell.empty_chain_dict()
        v, j = GENES[locus]
        chain.update(locus=locus, junction_aa=sequence, junction="TGT" * len(sequence), productive=True, v_call=v, j_call=j,
                     sequence_id=f"cell{i}_{k}", duplicate_count=n, umi_count=n, consensus_count=10 * n)
        cell.add_chain(chain)
    cells.append(cell)
airr = ir.io.from_airr_cells(cells)
airr = airr[[f"cell{i}" for i in range(len(CELLS)) if f"cell{i}" in airr.obs_names]].copy()
"#;

/// What scirpy makes of them.
const SCIRPY: &str = r#"
ir.pp.index_chains(airr)
ir.tl.chain_qc(airr)
sequences = ir.get.airr(airr, "junction_aa", ["VJ_1", "VDJ_1"])
ir.pp.ir_dist(airr, metric="identity", sequence="aa")
ir.tl.define_clonotype_clusters(airr, metric="identity", sequence="aa", receptor_arms="all", dual_ir="primary_only")
clone = airr.obs["cc_aa_identity"].astype(object)
airr.write("theirs.h5ad")
text = lambda values: ["" if not isinstance(v, str) else v for v in values]
print(json.dumps({"names": list(airr.obs_names), "alpha": text(sequences["VJ_1_junction_aa"]), "beta": text(sequences["VDJ_1_junction_aa"]),
                  "clone": text(clone)}))
"#;

/// What scirpy finds in a file that we wrote.
const AGAIN: &str = r#"
import json, warnings
warnings.filterwarnings("ignore")
import anndata, scirpy as ir
adata = anndata.read_h5ad("ours.h5ad")
ir.pp.index_chains(adata)
sequences = ir.get.airr(adata, "junction_aa", ["VJ_1", "VDJ_1"])
text = lambda values: ["" if not isinstance(v, str) else v for v in values]
print(json.dumps({"alpha": text(sequences["VJ_1_junction_aa"]), "beta": text(sequences["VDJ_1_junction_aa"]),
                  "own": [list(adata.obs["receptor_alpha"].astype(str)), list(adata.obs["receptor_beta"].astype(str))]}))
"#;

fn texts(adata: &AnnData, column: &str) -> Vec<String> {
    adata.obs.column(column).unwrap().to_strings().into_iter().map(Option::unwrap_or_default).collect()
}

fn list(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn scirpy_and_we_see_the_same_receptors_and_clonotypes() {
    let Some(python) = python("scverse", &INTERPRETERS, &SCVERSE) else { return };
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let theirs = say(&python, &bench, &format!("{CONTIGS}{SCIRPY}"));
    bench.run(&["receptors", "theirs.h5ad", "--keep-all", "--out", "ours.h5ad"]);
    let ours = AnnData::read(bench.path("ours.h5ad")).unwrap();
    assert_eq!(ours.obs_names(), list(&theirs["names"]));
    let (alpha, beta) = (texts(&ours, "receptor_alpha"), texts(&ours, "receptor_beta"));
    assert_eq!((&alpha, &beta), (&list(&theirs["alpha"]), &list(&theirs["beta"])));
    // Clones are the same sets of cells, of those that have both chains.
    let complete: Vec<usize> =
        (0..alpha.len()).filter(|&cell| !alpha[cell].is_empty() && !beta[cell].is_empty()).collect();
    let together = |clones: &[String]| -> Vec<bool> {
        complete
            .iter()
            .flat_map(|&one| complete.iter().map(move |&other| (one, other)))
            .map(|(one, other)| clones[one] == clones[other])
            .collect()
    };
    assert!(complete.len() >= 7, "{complete:?}");
    assert_eq!(together(&texts(&ours, "clonotype")), together(&list(&theirs["clone"])));

    let again = say(&python, &bench, AGAIN);
    assert_eq!((list(&again["alpha"]), list(&again["beta"])), (alpha.clone(), beta.clone()), "records go through us");
    assert_eq!((list(&again["own"][0]), list(&again["own"][1])), (alpha, beta));
}

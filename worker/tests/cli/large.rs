//! Counts that do not fit into the memory that they may take: the same results, from scratch files that leave nothing behind.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use archipelago_anndata::{AnnData, Column, Compression, Csr, DataFrame};

use super::{Bench, read_json};

const MAP: [&str; 9] = ["map", "reference", "cells.h5ad", "--batches", "c,b", "--epochs", "2", "--device", "cpu"];

fn n_files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Says what a run with nothing in memory said, after it left nothing behind.
fn run_in_scratch(bench: &Bench, args: &[&str]) -> String {
    let scratch = bench.path("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    let output = bench.command(&[args, &["--memory", "0B", "--scratch", "scratch"]].concat()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("scratch files in `scratch`"), "{said}");
    assert_eq!(n_files(&scratch), 0);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_mapping_from_scratch_files_is_the_one_in_memory() {
    let bench = Bench::with_reference();
    for surgery in ["exact", "upstream"] {
        let map = |out| [&MAP[..], &["--surgery", surgery, "--dataset", surgery, "--overwrite", "--out", out]].concat();
        let said = bench.command(&[&map("whole")[..], &["--memory", "1GiB"]].concat()).output().unwrap();
        assert!(said.status.success() && !String::from_utf8_lossy(&said.stderr).contains("scratch"));
        run_in_scratch(&bench, &map("spilled"));
        let [whole, spilled] = ["whole", "spilled"].map(|out| bench.path(out));
        assert_eq!(read_json(&whole.join("version.json")), read_json(&spilled.join("version.json")), "{surgery}");
        let [cells, of_spilled] = [&whole, &spilled].map(|out| AnnData::read(out.join("mapped.h5ad")).unwrap());
        assert_eq!((cells.n_obs(), cells), (80, of_spilled), "{surgery}");
    }
}

#[test]
fn training_embedding_and_prediction_from_scratch_files_are_those_in_memory() {
    let bench = Bench::new();
    let train = |out| {
        let args = ["train", "cells.h5ad", "--model", "scanvi", "--labels-key", "cell_type", "--batches", "a,b"];
        [&args[..], &["--epochs", "2", "--n-hidden", "16", "--device", "cpu", "--out", out]].concat()
    };
    bench.run(&train("whole"));
    run_in_scratch(&bench, &train("spilled"));
    assert_eq!(read_json(&bench.path("whole/version.json")), read_json(&bench.path("spilled/version.json")));
    for command in ["latent", "predict"] {
        let args =
            |out| [command, "whole", "cells.h5ad", "--batches", "a", "--device", "cpu", "--overwrite", "--out", out];
        bench.run(&args("whole.csv"));
        run_in_scratch(&bench, &args("spilled.csv"));
        let text = |name: &str| std::fs::read_to_string(bench.path(name)).unwrap();
        assert_eq!(text("whole.csv"), text("spilled.csv"), "{command}");
    }
}

#[test]
fn a_scratch_directory_that_cannot_be_used_is_named_with_what_to_do() {
    let bench = Bench::with_reference();
    std::fs::write(bench.path("file"), "").unwrap();
    for scratch in ["nowhere", "file"] {
        let args = ["--out", "mapped", "--memory", "0B", "--scratch", scratch];
        let said = bench.fail(1, &[&MAP[..], &args].concat());
        assert!(said.contains("scratch file of up to") && said.contains(&format!("`{scratch}`")), "{said}");
        assert!(said.contains("hint: name a directory") && said.contains("--memory"), "{said}");
    }
    for size in ["much", "-1GiB"] {
        let said = bench.fail(2, &[&MAP[..], &["--out=mapped", &format!("--memory={size}")]].concat());
        assert!(said.contains(size) && said.contains("expected a size such as 4GiB"), "{said}");
    }
}

#[test]
fn a_disk_that_is_full_is_an_error_and_no_signal() {
    let bench = Bench::with_reference();
    // No file of this process may grow beyond 1 KiB: a write to a scratch file fails as on a full disk.
    let limited = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_archipelago-worker")])
        .args([&MAP[..], &["--out", "mapped", "--memory", "0B", "--scratch", "."]].concat())
        .current_dir(bench.path("."))
        .output()
        .unwrap();
    let said = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(1), "{said}");
    assert!(
        said.contains("failed to write a scratch file of up to") && said.contains("hint: name a directory"),
        "{said}"
    );
}

#[test]
fn a_cache_that_finds_no_room_is_done_without() {
    let bench = Bench::with_reference();
    let args = ["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "2", "--device", "cpu"];
    bench.run(&[&args[..], &["--out", "whole"]].concat());
    let of_c: Vec<usize> = (80..120).collect();
    let cells = AnnData::read(bench.path("cells.h5ad")).unwrap().select_obs(&of_c).unwrap();
    let counts = 8 * cells.matrix(None).unwrap().to_csr().unwrap().nnz();
    // Room for the counts, and hardly more.
    let memory = (counts + 100).to_string();
    let tight = ["--out", "tight", "--memory", &memory, "--scratch", "nowhere"];
    let output = bench.command(&[&args[..], &tight].concat()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("it is computed in every step"), "{said}");
    let version = |out: &str| read_json(&bench.path(out).join("version.json"));
    assert_eq!(version("tight"), version("whole"));
}

#[test]
fn a_process_that_is_killed_leaves_nothing_in_scratch() {
    let bench = Bench::with_reference();
    let scratch = bench.path("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_archipelago-worker"))
        .args(["map", "reference", "cells.h5ad", "--batches", "c", "--epochs", "100000", "--device", "cpu"])
        .args(["--checkpoint-every", "1", "--out", "mapped", "--memory", "0B", "--scratch", "scratch"])
        .current_dir(bench.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let checkpoints = bench.path("mapped/checkpoints");
    while !checkpoints.exists() || n_files(&checkpoints) == 0 {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "no checkpoint was written");
        std::thread::yield_now();
    }
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    assert!(maps.contains("scratch/") && n_files(&scratch) == 0, "it trains on scratch files that have no name");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(n_files(&scratch), 0);
}

/// Cells of batches `many` and `few` in `large.h5ad`, every gene counted in every cell: 92 MiB of counts and columns.
fn write_large(bench: &Bench) {
    let (n_cells, n_genes) = (3_000, 4_000);
    let indices = (0..n_cells).flat_map(|_| 0..n_genes as u32).collect();
    let indptr = (0..=n_cells).map(|cell| cell * n_genes).collect();
    let x = Csr::new(n_cells, n_genes, indptr, indices, vec![1.0; n_cells * n_genes]).unwrap();
    let mut obs = DataFrame::new((0..n_cells).map(|cell| cell.to_string()));
    let batches: Vec<&str> = (0..n_cells).map(|cell| if cell < 10 { "few" } else { "many" }).collect();
    obs.insert("batch", Column::categorical(&batches)).unwrap();
    let var = DataFrame::new((1..=n_genes).map(|gene| format!("GENE{gene:05}")));
    AnnData::new(x, obs, var).unwrap().write(bench.path("large.h5ad"), Compression::None).unwrap();
}

/// Maps a batch of it with so much memory for counts. Gives how it ended and the most private writable memory it had, MiB,
/// which is what `ulimit -d` bounds (in KiB).
fn map_large(bench: &Bench, batch: &str, memory: &str, limit: &str) -> (Result<(), String>, u64) {
    let args = ["map", "reference", "large.h5ad", "--batches", batch, "--epochs", "1", "--device", "cpu", "--quiet"];
    let mut child = Command::new("bash")
        .args(["-c", "ulimit -d \"$1\"; shift; exec \"$@\"", "bash", limit])
        .arg(env!("CARGO_BIN_EXE_archipelago-worker"))
        .args([&args[..], &["--overwrite", "--out", batch, "--memory", memory, "--scratch", "."]].concat())
        .current_dir(bench.path("."))
        .env("OMP_NUM_THREADS", "1")
        .env("RAYON_NUM_THREADS", "2")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut most_kib = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
        most_kib = line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap()).max(most_kib);
        std::thread::yield_now();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (if output.status.success() { Ok(()) } else { Err(said) }, most_kib >> 10)
}

#[test]
fn counts_beyond_the_budget_do_not_take_memory() {
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    let small = ["generate", "--batches", "a", "--n-cells", "20", "--n-genes", "4000", "--out", "small.h5ad"];
    bench.run(&small);
    let train = ["train", "small.h5ad", "--epochs", "1", "--n-hidden", "16", "--device", "cpu", "--out", "reference"];
    bench.run(&train);
    write_large(&bench);
    let version = || read_json(&bench.path("many/version.json"));

    let (done, few) = map_large(&bench, "few", "4MiB", "unlimited");
    done.unwrap();
    let (done, whole) = map_large(&bench, "many", "1GiB", "unlimited");
    done.unwrap();
    let expected = version();
    let (done, spilled) = map_large(&bench, "many", "4MiB", "unlimited");
    done.unwrap();
    assert_eq!(version(), expected);
    assert!(whole > spilled + 60, "{whole} MiB with the counts in memory, {spilled} MiB without");
    // Beside the budget: pieces of rows that are read and written, a few numbers per cell.
    assert!(spilled < few + 4 + 80, "{spilled} MiB for 3,000 cells, {few} MiB for 10");

    let between = u64::midpoint(whole, spilled) << 10;
    std::fs::remove_dir_all(bench.path("many")).unwrap();
    let broken = map_large(&bench, "many", "1GiB", &between.to_string()).0;
    assert!(broken.is_err(), "{between} KiB are too few for counts in memory");
    map_large(&bench, "many", "4MiB", &between.to_string()).0.unwrap();
    assert_eq!(version(), expected);
}

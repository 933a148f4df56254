//! The program as a user meets it: commands on small data, and what it says when the input is bad.

mod bad_input;
mod consent;
mod contract;
mod coordinator;
mod data_sets;
mod day;
mod doctor;
mod epsilon;
mod exchange;
mod faults;
mod forged;
mod import;
mod journey;
mod keys;
mod killed;
mod labels;
mod large;
mod modalities;
mod names;
mod native;
mod obs;
mod preprocess;
mod proteins;
mod questions;
mod real_files;
mod receptors;
mod serve;
mod site;
mod space;
mod surgery;
mod task;
mod terms;
mod terms_of_sites;
mod traps;
mod tree;
mod tutorials;
mod versions;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

/// A directory with synthetic cells: batches `a`, `b` and `c` of 40 cells and 60 genes in `cells.h5ad`.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        bench.run(&["generate", "--batches", "a,b,c", "--n-cells", "40", "--n-genes", "60", "--out", "cells.h5ad"]);
        bench
    }

    /// The same with a reference trained on `a` and `b` in `reference`.
    fn with_reference() -> Self {
        let bench = Self::new();
        bench.run(&TRAIN);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("archipelago-worker").unwrap();
        // Many small trainings at once: threads of one that wait for each other would only take time from the rest.
        command.current_dir(self.dir.path()).env_remove("ARCHIPELAGO_LOG").env("OMP_NUM_THREADS", "1").args(args);
        command
    }

    /// Runs a command that must succeed; its standard output.
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?} failed:\n{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, with `--format json`.
    fn run_json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(&[args, &["--format", "json"]].concat())).unwrap()
    }

    /// Runs a command that must fail with this exit code; what it says.
    fn fail(&self, code: i32, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?} said:\n{stderr}");
        assert!(output.stdout.is_empty(), "a failed command writes no data");
        stderr
    }
}

/// Training that takes a moment.
const TRAIN: [&str; 13] = [
    "train",
    "cells.h5ad",
    "--batches",
    "a,b",
    "--epochs",
    "2",
    "--n-hidden",
    "16",
    "--n-latent",
    "4",
    "--device",
    "cpu",
    "--out=reference",
];

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

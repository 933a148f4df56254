//! Training that is killed in the middle ends where an undisturbed one ends, bit for bit.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::Bench;

const SMALL: [&str; 4] = ["--checkpoint-every", "1", "--device", "cpu"];

/// Starts a command, kills it (SIGKILL) as soon as `has_begun`, and says whether it was still at work.
fn kill_when(bench: &Bench, args: &[&str], has_begun: impl Fn() -> bool) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_archipelago-worker"))
        .args(args)
        .current_dir(bench.path("."))
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !has_begun() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        assert!(Instant::now() < deadline, "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed at work");
}

/// Runs a command to its end; its result and what it said.
fn finish(bench: &Bench, args: &[&str]) -> (serde_json::Value, String) {
    let output = bench.command(&[args, &["--format", "json"]].concat()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

fn holds_training(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".training"))
}

#[test]
fn a_reference_whose_training_was_killed_is_the_one_of_an_undisturbed_run() {
    let bench = Bench::new();
    let train = |out| {
        let args = ["train", "cells.h5ad", "--model", "scanvi", "--labels-key", "cell_type", "--batches", "a,b"];
        [&args[..], &["--epochs", "200", "--n-hidden", "16", "--out", out], &SMALL].concat()
    };
    kill_when(&bench, &train("killed"), || bench.path("killed/training.checkpoint").exists());
    assert!(!bench.path("killed/version.json").exists());
    let (resumed, said) = finish(&bench, &train("killed"));
    assert!(said.contains("going on from the checkpoint"), "{said}");
    let (whole, _) = finish(&bench, &train("whole"));
    assert_eq!((&resumed["version"], &resumed["epochs"]), (&whole["version"], &200.into()));
    assert!(!bench.path("killed/training.checkpoint").exists());
}

#[test]
fn a_query_whose_mapping_was_killed_gets_the_columns_of_an_undisturbed_run() {
    let bench = Bench::with_reference();
    for surgery in ["exact", "upstream"] {
        let map = |out| {
            let args = ["map", "reference", "cells.h5ad", "--batches", "c", "--surgery", surgery];
            [&args[..], &["--epochs", "200", "--out", out], &SMALL].concat()
        };
        let (killed, whole) = (format!("killed-{surgery}"), format!("whole-{surgery}"));
        let dir = bench.path(&killed);
        kill_when(&bench, &map(&killed), || {
            holds_training(&dir.join("checkpoints")) || dir.join("training.checkpoint").exists()
        });
        assert!(!dir.join("version.json").exists());
        let (resumed, said) = finish(&bench, &map(&killed));
        assert!(said.contains("going on from the checkpoint"), "{said}");
        assert_eq!(resumed["version"], finish(&bench, &map(&whole)).0["version"]);
        assert!(!dir.join("checkpoints").exists() && !dir.join("training.checkpoint").exists());
    }
}

//! Transcripts: the lines of each `testdata/*.txt`, and under each what came of it. `UPDATE=1` rewrites them.

use std::{fs, path::Path};

use archipelago_cluster::{Applied, Refusal};

use crate::script::Script;

#[test]
fn transcripts_tell_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(!paths.is_empty(), "there is no transcript");
    for path in paths {
        check(&path);
    }
}

fn check(path: &Path) {
    let found = fs::read_to_string(path).unwrap();
    let told = tell(&found);
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(path, told).unwrap();
    } else {
        assert_eq!(told, found, "{} tells another story; `UPDATE=1` rewrites it", path.display());
    }
}

/// The transcript with its results as they are now.
fn tell(transcript: &str) -> String {
    let mut script = Script::default();
    let mut told = String::new();
    for line in transcript.lines().filter(|line| !line.starts_with(RESULT)) {
        told.push_str(line);
        told.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            told.push_str(&results(script.apply(line)));
        }
    }
    told
}

fn results(applied: Applied) -> String {
    let outcome = match applied.outcome {
        Ok(outcome) => format!("{outcome:?}"),
        Err(refusal) => format!("{} · {refusal}", kind(&refusal)),
    };
    let effects = applied.effects.iter().map(|effect| format!("{RESULT}  then {effect:?}\n"));
    format!("{RESULT}{outcome}\n{}", effects.collect::<String>())
}

fn kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Forbidden { .. } => "Forbidden",
        Refusal::NotFound { .. } => "NotFound",
        Refusal::Invalid { .. } => "Invalid",
        Refusal::Stale { .. } => "Stale",
        Refusal::Conflict { .. } => "Conflict",
    }
}

const RESULT: &str = "    ";

//! A budget of differential privacy, by real workers: it composes over tasks and restarts, and is refused before training when spent.

use archipelago_common::reference_dir::ReferenceDir;
use serde_json::Value;

use super::{
    Bench,
    coordinator::Coordinator,
    site::{authority, write_site},
};

const ONCE: [&str; 4] = ["serve", "--config", "site.toml", "--once"];
/// Twice the norm over the noise: a `μ` of one half.
const NOISED: &str = "clip_norm = 1.0\nnoise_std = 4.0\n";

fn set_up(policy: &str) -> (Bench, Coordinator) {
    let bench = Bench::with_reference();
    let (authority, reference) = (authority(), ReferenceDir::open(&bench.path("reference")).unwrap());
    let coordinator = Coordinator::start(&authority, &reference, |_| {});
    write_site(&bench, &authority, "site/north", &coordinator.address);
    let config = std::fs::read_to_string(bench.path("site.toml")).unwrap();
    std::fs::write(bench.path("site.toml"), format!("policy = \"policy.toml\"\n{config}")).unwrap();
    say(&bench, policy);
    (bench, coordinator)
}

fn say(bench: &Bench, policy: &str) {
    std::fs::write(bench.path("policy.toml"), policy).unwrap();
}

/// Asks for another task; whether the worker did it, and what it said.
fn serve(bench: &Bench, coordinator: &Coordinator, id: u64) -> (bool, String) {
    {
        let task = &mut coordinator.state().task;
        (task.id, task.task.train.seed) = (archipelago_common::TaskId(id), id);
        task.assignments.clear();
    }
    let output = bench.command(&ONCE).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn privacy(bench: &Bench) -> Value {
    bench.run_json(&["ledger", "--config", "site.toml"])["privacy"][0].clone()
}

#[test]
fn epsilon_is_shown_before_consent_composes_over_restarts_and_is_refused_when_spent() {
    let (bench, coordinator) = set_up(&format!("{NOISED}[budget]\nepsilon = 3.5\n"));
    let shown = bench.run_json(&["tasks", "--config", "site.toml"])[0]["privacy"][0]["epsilon"].as_f64().unwrap();
    assert!(serve(&bench, &coordinator, 1).0);
    let one = privacy(&bench);
    assert_eq!(one["epsilon"].as_f64(), Some(shown), "what left is what was shown");
    assert!((2.0..2.4).contains(&shown), "μ = 1/2 at a delta of 1e-6: {shown}");

    assert!(serve(&bench, &coordinator, 2).0);
    let two = privacy(&bench)["epsilon"].as_f64().unwrap();
    assert!((3.1..3.4).contains(&two), "the root of two times one half: {two}");
    for id in [3, 4] {
        let (done, said) = serve(&bench, &coordinator, id);
        assert!(!done && said.contains("the columns of `pbmc` would have left with an epsilon of 4.1"), "{said}");
        assert!(said.contains("(delta 0.000001), of 3.5"), "{said}");
        assert!(!bench.path(&format!("results/task-{id}")).exists(), "it is refused before training");
    }
    let told = coordinator.state().given_up.clone().unwrap();
    assert_eq!(told, "declined by the site: the site's budget for its cells is spent", "no number leaves");
    let (text, tasks) =
        (bench.run(&["ledger", "--config", "site.toml"]), bench.run(&["tasks", "--config", "site.toml"]));
    assert!(text.contains("pbmc: columns left with an epsilon of 3.") && text.contains("of 3.5"), "{text}");
    assert!(tasks.contains("with this  pbmc: columns left with an epsilon of 4.1"), "{tasks}");

    say(&bench, &format!("{NOISED}[budget]\nepsilon = 4.5\n"));
    assert!(serve(&bench, &coordinator, 5).0, "the site may spend more");
}

#[test]
fn what_has_left_without_noise_is_covered_by_no_epsilon() {
    let (bench, coordinator) = set_up("");
    assert!(serve(&bench, &coordinator, 1).0);
    assert_eq!(privacy(&bench)["epsilon"], Value::Null);
    say(&bench, &format!("{NOISED}[budget]\nepsilon = 1000.0\n"));
    let (done, said) = serve(&bench, &coordinator, 2);
    assert!(!done && said.contains("columns of `north/pbmc/c` left without noise for task 1"), "{said}");
    say(&bench, "[budget]\nepsilon = 2.0\n");
    let refused = bench.fail(2, &ONCE);
    assert!(refused.contains("policy.toml") && refused.contains("without `clip_norm` and a `noise_std`"), "{refused}");
}

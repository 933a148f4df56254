//! Files that people write for a worker, and those it wrote itself: none ends it or takes more memory than its length accounts for.

use std::path::{Path, PathBuf};

use archipelago_analysis::preprocess::{SetOptions, gene_sets};
use archipelago_common::{Digest, TaskId, policy::SitePolicy};
use archipelago_fuzz::Fuzz;

use crate::{
    audit::{AuditLog, AuditTrail, Kind, Release},
    config::SiteConfig,
    fields::SourceMap,
    recipe::Recipe,
};

fn target(name: &'static str, ending: &str) -> Fuzz {
    Fuzz::new(name).with_files(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz"), ending)
}

fn in_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    read(&path);
}

#[test]
fn any_text_is_a_configuration_or_an_error() {
    target("site.toml", "site.toml").run(1_000, |bytes| {
        in_file(bytes, |path| {
            if let Ok(config) = SiteConfig::read(path) {
                SiteConfig::explain(path).expect("what was read is explained");
                assert!(config.nodes().is_ok(), "a configuration that was read names its coordinators");
            }
        });
    });
}

#[test]
fn any_text_is_a_policy_or_an_error() {
    target("policy.toml", "policy.toml").run(2_000, |bytes| {
        if let Ok(policy) = toml::from_slice::<SitePolicy>(bytes) {
            let again = toml::to_string(&policy).expect("a policy is TOML");
            assert_eq!(toml::from_str::<SitePolicy>(&again).expect("what was written is read"), policy);
        }
    });
}

#[test]
fn any_text_is_a_recipe_or_an_error() {
    target("recipe.toml", "recipe.toml").run(1_000, |bytes| in_file(bytes, |path| drop(Recipe::read(path))));
}

#[test]
fn any_text_is_places_of_fields_or_an_error() {
    let fuzz =
        Fuzz::new("fields").with(*b"labels = \"obs/cell_type\"\nrna = \"layers/counts\"\nproteins = \"mod/prot\"\n");
    fuzz.run(2_000, |bytes| drop(toml::from_slice::<SourceMap>(bytes)));
}

#[test]
fn any_bytes_are_a_log_whose_chain_holds_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut log = AuditLog::open(&path).unwrap();
    for size in [10, 20, 30] {
        let (kind, site, task) = (Kind::Columns, "north".parse().unwrap(), TaskId(3));
        let (digest, policy) = (Digest::of(b"columns"), Digest::of(b"policy"));
        let condition = Some("north/pbmc/b1".parse().unwrap());
        log.append(Release { kind, site, task, condition, digest, size, policy }).unwrap();
    }
    Fuzz::new("audit.jsonl").with(std::fs::read(&path).unwrap()).run(1_000, |bytes| {
        in_file(bytes, |path| {
            if let Ok(trail) = AuditTrail::read(path) {
                assert!(trail.contains(&trail.head()) && trail.entries.len() <= bytes.len());
            }
        });
    });
}

#[test]
fn any_text_is_gene_sets() {
    let genes: Vec<String> = (0..200).map(|i| format!("G{i}")).chain(["A".to_owned()]).collect();
    let options = SetOptions { min_genes: 0, max_genes: None, clean: true, upper: true };
    target("sets.gmt", "sets.gmt").run(1_000, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let sets = gene_sets(&[text], &genes, options);
        assert!(sets.members.len() == sets.terms.len() && sets.terms.len() <= text.lines().count());
    });
}

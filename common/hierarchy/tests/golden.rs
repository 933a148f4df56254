//! Golden cases of the tree alone, computed by scHPL 1.0.5: matching, reading, editing, scoring.
//!
//! The directory is `$ARCHIPELAGO_GOLDEN`, by default the repository's `tests/golden`. Cases with cells are the analysis
//! crate's.

use std::path::{Path, PathBuf};

use archipelago_hierarchy::{
    Addition, BinaryTable, CountTable, JoinOptions, Node, Rules, SumTable, Tree, hierarchical_f1,
};
use serde_json::Value;

fn case(name: &str) -> Value {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let root = std::env::var_os("ARCHIPELAGO_GOLDEN").map_or(repository, PathBuf::from);
    let path = root.join("treearches").join(name).with_extension("json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("no golden case {}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

fn tree(facts: &Value) -> Tree {
    serde_json::from_value(facts.clone()).unwrap()
}

fn strings(facts: &Value) -> Vec<&str> {
    facts.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn counts(facts: &Value) -> CountTable {
    let rows = facts.as_object().unwrap();
    let cells = rows.iter().flat_map(|(row, columns)| {
        let columns = columns.as_object().unwrap().iter();
        columns.flat_map(move |(column, n)| (0..n.as_u64().unwrap()).map(move |_| (row.as_str(), column.as_str())))
    });
    CountTable::of_cells(cells)
}

struct Scenario<'a>(&'a Value);

impl<'a> Scenario<'a> {
    fn all(case: &'a Value) -> Vec<Self> {
        let scenarios: Vec<Self> = case["scenarios"].as_array().unwrap().iter().map(Scenario).collect();
        assert!(scenarios.len() > 20);
        scenarios
    }

    fn name(&self) -> &str {
        self.0["scenario"].as_str().unwrap()
    }

    fn addition(&self) -> Addition {
        Addition {
            of_tree: counts(&self.0["cells_of_1_predicted_by_2"]),
            of_joining: counts(&self.0["cells_of_2_predicted_by_1"]),
        }
    }

    fn options(&self, rules: Rules) -> JoinOptions {
        JoinOptions {
            match_threshold: self.0["match_threshold"].as_f64().unwrap(),
            attach_missing: self.0["attach_missing"].as_bool().unwrap(),
            rules,
        }
    }

    /// The tree and what is missing by the given rules.
    fn run(&self, rules: Rules) -> (Tree, archipelago_hierarchy::Joined) {
        let mut grown = tree(&self.0["tree_before"]);
        let joined = grown.join(&self.addition(), &self.options(rules));
        (grown, joined.unwrap_or_else(|error| panic!("{}: {error}", self.name())))
    }

    fn check_marks(&self, found: &BinaryTable, facts: &Value) {
        assert_eq!(found.rows, strings(&facts["binary"]["rows"]), "{}", self.name());
        assert_eq!(found.columns, strings(&facts["binary"]["cols"]), "{}", self.name());
        let marks: Vec<Vec<f64>> = serde_json::from_value(facts["binary"]["values"].clone()).unwrap();
        let found: Vec<Vec<f64>> = found.marks.iter().map(|row| row.iter().map(|&m| f64::from(m)).collect()).collect();
        assert_eq!(found, marks, "{}: binary table", self.name());
    }

    fn check_sums(&self, found: &SumTable) {
        let facts = &self.0["sum_table"];
        assert_eq!(found.rows, strings(&facts["rows"]), "{}", self.name());
        assert_eq!(found.columns, strings(&facts["cols"]), "{}", self.name());
        let sums: Vec<Vec<Option<f64>>> = serde_json::from_value(facts["values"].clone()).unwrap();
        let found: Vec<Vec<Option<f64>>> =
            found.sums.iter().map(|row| row.iter().map(|sum| sum.map(f64::from)).collect()).collect();
        assert_eq!(found, sums, "{}: sum table", self.name());
    }
}

#[test]
fn every_scenario_ends_in_upstream_s_tree() {
    for name in ["update_scenarios", "update_random"] {
        let case = case(name);
        let mut n_crashes = 0;
        for scenario in Scenario::all(&case) {
            let (grown, joined) = scenario.run(Rules::Upstream);
            // Upstream stops with a Python error; ours ends, and every label that joined is in the tree.
            if scenario.0.get("upstream_error").is_some() {
                n_crashes += 1;
                let placed = joined.statuses.iter().filter(|(_, status)| status.has_joined);
                placed.for_each(|(label, _)| assert!(grown.node(label).is_some(), "{}: {label}", scenario.name()));
                continue;
            }
            assert_eq!(grown, tree(&scenario.0["tree_after"]), "{}", scenario.name());
            assert_eq!(joined.missing(), strings(&scenario.0["missing"]), "{}", scenario.name());
        }
        assert!(n_crashes < 10, "{name}: {n_crashes} scenarios without a tree to compare");
    }
}

#[test]
fn every_table_on_the_way_is_upstream_s() {
    let case = case("update_scenarios");
    for scenario in Scenario::all(&case) {
        let (_, joined) = scenario.run(Rules::Upstream);
        for (found, facts) in joined.marks.iter().zip(scenario.0["tables"].as_array().unwrap()) {
            scenario.check_marks(found, facts);
        }
        scenario.check_sums(&joined.sums);
        for (label, facts) in scenario.0["status"].as_object().unwrap() {
            let status = &joined.statuses[label];
            assert_eq!(f64::from(u8::from(status.has_joined)), facts["added"].as_f64().unwrap(), "{label}");
            let matched = status.matched.as_deref().unwrap_or("0.0");
            assert_eq!(matched, facts["perfect_match"].as_str().unwrap(), "{}: {label}", scenario.name());
        }
    }
}

/// Where the corrected rules differ from upstream's, they keep every label: in the tree, or among the missing.
#[test]
fn corrected_rules_lose_no_label_and_differ_where_upstream_errs() {
    let (scenarios, random) = (case("update_scenarios"), case("update_random"));
    let mut differing = Vec::new();
    for scenario in Scenario::all(&scenarios).into_iter().chain(Scenario::all(&random)) {
        let (grown, joined) = scenario.run(Rules::Corrected);
        for (label, status) in &joined.statuses {
            let is_in_tree = grown.node(label).is_some();
            assert!(is_in_tree || !status.has_joined, "{}: {label} is lost", scenario.name());
        }
        let Some(after) = scenario.0.get("tree_after") else { continue };
        if tree(after) != grown || joined.missing() != strings(&scenario.0["missing"]) {
            differing.push(scenario.name().to_owned());
        }
    }
    assert_eq!(differing, DIFFERING);
}

/// Here upstream says that a merge was done, and the label is in no node.
const DIFFERING: [&str; 1] = ["internal node is the difficult one"];

#[test]
fn trees_are_read_and_walked_as_upstream() {
    let case = case("trees_and_metrics");
    for facts in case["parse"].as_array().unwrap() {
        let read = Tree::from_newick(facts["newick"].as_str().unwrap()).unwrap();
        // Upstream keeps a space before the name of an inner node; ours trims all names.
        let mut expected = facts["tree"].clone();
        trim(&mut expected);
        assert_eq!(read, tree(&expected));
        let trimmed = |key: &str| strings(&facts[key]).into_iter().map(str::trim).collect::<Vec<_>>();
        assert_eq!(read.root().preorder().map(Node::name).collect::<Vec<_>>(), trimmed("preorder"));
        assert_eq!(read.root().postorder().map(Node::name).collect::<Vec<_>>(), trimmed("postorder"));
        assert_eq!(read.root().leaves().map(Node::name).collect::<Vec<_>>(), trimmed("leaves"));
    }
}

fn trim(node: &mut Value) {
    node["name"][0] = node["name"][0].as_str().unwrap().trim().into();
    node["children"].as_array_mut().unwrap().iter_mut().for_each(trim);
}

#[test]
fn edits_are_upstream_s() {
    let case = case("trees_and_metrics");
    let mut edited = Tree::from_newick("((CD4,CD8)T,B,Mono)root").unwrap();
    for facts in case["edit_sequence_from_((CD4,CD8)T,B,Mono)root"].as_array().unwrap() {
        let done = match facts["op"].as_str().unwrap() {
            "add NK under root" => edited.add_node("NK", "root", &[]),
            "add Lymph under root with children T, B" => edited.add_node("Lymph", "root", &["T".into(), "B".into()]),
            "rename Mono to Myeloid" => edited.rename_node("Mono", "Myeloid"),
            "remove T, keep children (rewired to the parent)" => edited.remove_node_only("T"),
            "remove Lymph with children" => edited.remove_node("Lymph"),
            "add X under unknown parent (no change)" => {
                assert!(edited.add_node("X", "nowhere", &[]).is_err());
                Ok(())
            }
            other => panic!("no test knows the edit `{other}`"),
        };
        done.unwrap();
        assert_eq!(edited, tree(&facts["tree"]), "{}", facts["op"]);
    }
}

#[test]
fn the_hierarchical_f1_is_upstream_s() {
    let case = case("trees_and_metrics");
    let facts = &case["hierarchical_f1"];
    let known = Tree::from_newick(facts["tree"].as_str().unwrap()).unwrap();
    for facts in facts["cases"].as_array().unwrap() {
        let pairs = strings(&facts["true"]).into_iter().zip(strings(&facts["pred"]));
        let found = hierarchical_f1(&known, pairs);
        match facts["hF1"].as_f64() {
            Some(expected) => assert!((found.unwrap() - expected).abs() < 1e-12),
            None => assert_eq!(found, None, "upstream: {}", facts["upstream_error"]),
        }
    }
}

#[test]
fn the_confusion_matrix_and_its_shares_are_upstream_s() {
    let case = case("trees_and_metrics");
    let facts = &case["confusion"];
    let table = CountTable::of_cells(strings(&facts["true"]).into_iter().zip(strings(&facts["pred"])));
    for (key, is_share) in [("counts", false), ("row_fraction_heatmap", true)] {
        assert_eq!(table.rows(), strings(&facts[key]["rows"]));
        assert_eq!(table.columns(), strings(&facts[key]["cols"]));
        let expected: Vec<Vec<f64>> = serde_json::from_value(facts[key]["values"].clone()).unwrap();
        let count = |row: &str, column: &str| table.count(row, column) as f64;
        let counts = table.rows().into_iter().map(|r| table.columns().into_iter().map(|c| count(r, c)).collect());
        let found: Vec<Vec<f64>> = if is_share { table.shares() } else { counts.collect() };
        let pairs = found.iter().flatten().zip(expected.iter().flatten());
        pairs.for_each(|(found, expected)| assert!((found - expected).abs() < 1e-12, "{key}"));
    }
}

//! Finds cases, reads them, compares tensors at the tolerance that a case states.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use archipelago_common::{Digest, StateDict};
use archipelago_models::{
    Config,
    data::{CONTINUOUS, Covariates, LABELS, Minibatch, Registry},
    nn::to_tch,
};
use serde_json::Value;
use tch::{Kind, Tensor};

/// One case: options and tensors.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) json: Value,
    pub(crate) tensors: StateDict,
}

/// `|a - b| <= atol + rtol * |b|`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) rtol: f64,
    pub(crate) atol: f64,
}

/// Collects what differs, so that one run tells everything.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) failures: Vec<String>,
    pub(crate) n_compared: usize,
}

/// `$ARCHIPELAGO_GOLDEN`, else the repository's copy.
pub(crate) fn root() -> PathBuf {
    match std::env::var_os("ARCHIPELAGO_GOLDEN") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    }
}

/// Folder of one model's cases: the one of its name, or the root itself.
pub(crate) fn folder(model: &str) -> PathBuf {
    let root = root();
    let inner = root.join(model);
    if inner.is_dir() { inner } else { root }
}

/// All cases of a model, in name order. Panics where there is none: then nothing was tested.
pub(crate) fn cases(model: &str) -> Vec<Case> {
    let folder = folder(model);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("failed to read `{}`: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let cases: Vec<Case> =
        paths.iter().filter(|p| p.extension().is_some_and(|e| e == "json")).map(|p| read(p)).collect();
    assert!(!cases.is_empty(), "`{}` holds no golden case", folder.display());
    cases
}

/// One case of a folder; none, with a word on it, where the root does not hold that folder.
pub(crate) fn find(model: &str, name: &str) -> Option<Case> {
    let path = root().join(model).join(format!("{name}.json"));
    if !path.is_file() {
        say(&format!("{model}/{name}: skipped, it is not in `{}`", root().display()));
        return None;
    }
    Some(read(&path))
}

/// Runs `check` on every case whose name `is_one` takes, and fails with everything that differs.
pub(crate) fn run(model: &str, is_one: impl Fn(&str) -> bool, check: impl Fn(&Case, &mut Report)) {
    run_those(model, |case| is_one(&case.name), check);
}

/// Runs `check` on every case that `is_one` takes, and fails with everything that differs.
pub(crate) fn run_those(model: &str, is_one: impl Fn(&Case) -> bool, check: impl Fn(&Case, &mut Report)) {
    // Matrices this small gain nothing from threads, which then wait for each other on a busy machine.
    tch::set_num_threads(1);
    let mut report = Report::default();
    let cases: Vec<Case> = cases(model).into_iter().filter(is_one).collect();
    if cases.is_empty() {
        say(&format!("{model}: nothing to do here, no case of this kind in `{}`", folder(model).display()));
    }
    for case in &cases {
        let before = report.n_compared;
        check(case, &mut report);
        assert!(report.n_compared > before, "`{}` compared nothing", case.name);
        say(&format!("{model}/{}: {} comparisons", case.name, report.n_compared - before));
    }
    assert!(report.failures.is_empty(), "{} differences:\n{}", report.failures.len(), report.failures.join("\n"));
}

/// Tells whoever runs the tests with `--nocapture` what was done or skipped.
#[expect(clippy::print_stderr, reason = "the one place where these tests talk")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Appends the digest of a computed tensor to the file that `$ARCHIPELAGO_GOLDEN_DIGESTS` names: what a change of code leaves
/// equal bit for bit is in the file of before and in the file of after. The order of lines is that in which tests ran: sort them.
fn record(what: &str, ours: &Tensor) {
    let Some(path) = std::env::var_os("ARCHIPELAGO_GOLDEN_DIGESTS") else { return };
    let values = Vec::<f64>::try_from(ours.detach().to_kind(Kind::Double).reshape(-1)).unwrap();
    let digest = Digest::of(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{what}\t{digest}\n").as_bytes()).unwrap();
}

/// Whether a folder holds saved models to import: folders that say what is expected of them.
pub(crate) fn holds_saved_models(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().join("expected.json").is_file())
}

/// Whether the root holds cases of some model's numbers.
pub(crate) fn holds_numbers() -> bool {
    let is_case = |path: PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let files = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files(root()).any(|path| is_case(path.clone()) || (path.is_dir() && files(path).any(is_case)))
}

fn read(path: &Path) -> Case {
    let json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let tensors = match fs::read(path.with_extension("safetensors")) {
        Ok(bytes) => {
            let (tensors, _) = StateDict::from_safetensors("golden case", &bytes).unwrap();
            tensors.iter().map(|(name, tensor)| (canonical(name), tensor.clone())).collect()
        }
        Err(_) => StateDict::new(),
    };
    Case { name: path.file_stem().unwrap().to_string_lossy().into_owned(), json, tensors }
}

/// A tensor's name as `group/rest`. Cases of scvi-tools write it so; those of scArches' native models join the words of the group and
/// the rest with dots, `after.step2.encoder.FC.L0.expr_L.weight`, and call the input `in`.
fn canonical(name: &str) -> String {
    if name.contains('/') {
        return name.to_owned();
    }
    let is_of_group = |word: &&str| {
        let numbered = |start: &str| {
            word.strip_prefix(start).is_some_and(|n| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()))
        };
        GROUPS.contains(word) || ["step", "epoch_end", "site"].into_iter().any(numbered)
    };
    let words: Vec<&str> = name.split('.').collect();
    let n_words = words.iter().take_while(|word| is_of_group(word)).count().min(words.len() - 1);
    if n_words == 0 {
        return name.to_owned();
    }
    let group = words[..n_words].join(".");
    format!("{}/{}", if group == "in" { "input" } else { &group }, words[n_words..].join("."))
}

/// Words of groups of tensors in the cases of native models, beside those that are numbered.
const GROUPS: [&str; 14] = [
    "after",
    "before_prox",
    "classify",
    "grad",
    "in",
    "joint",
    "loss",
    "merged",
    "noise",
    "out",
    "param",
    "prototype_init",
    "prox",
    "ref",
];

#[test]
fn names_of_tensors_have_one_shape() {
    for (name, expected) in [
        ("param/decoder.px_decoder.weight", "param/decoder.px_decoder.weight"),
        ("in.x", "input/x"),
        ("noise.step1", "noise/step1"),
        ("loss.step3.kl_loss", "loss.step3/kl_loss"),
        ("param.decoder.FirstL.L0.cond_L.weight", "param/decoder.FirstL.L0.cond_L.weight"),
        ("joint.after.step5.theta", "joint.after.step5/theta"),
        ("site2.grad.step1.theta", "site2.grad.step1/theta"),
        ("merged.theta", "merged/theta"),
        ("mu", "mu"),
    ] {
        assert_eq!(canonical(name), expected);
    }
}

impl Case {
    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("`{}` has no tensor `{name}`", self.name))
    }

    pub(crate) fn find(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(&canonical(name)).map(|tensor| to_tch(name, tensor).unwrap())
    }

    /// Tensors under a prefix such as `param/`, by the rest of their names.
    pub(crate) fn group(&self, prefix: &str) -> StateDict {
        let one = canonical(&format!("{prefix}*"));
        let prefix = one.trim_end_matches('*');
        let inside =
            self.tensors.iter().filter_map(|(name, t)| name.strip_prefix(prefix).map(|n| (n.to_owned(), t.clone())));
        inside.collect()
    }

    /// Options of the constructor.
    pub(crate) fn options(&self) -> Config {
        let options = self.json["constructor"].as_object().unwrap();
        options.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    pub(crate) fn n_genes(&self) -> usize {
        self.tensor("input/x").size()[1] as usize
    }

    /// The minibatch stored under `{group}/`, with the fields of a registry.
    pub(crate) fn minibatch(&self, group: &str, registry: &Registry) -> Minibatch {
        let find = |name: &str| self.find(&format!("{group}/{name}"));
        let codes = |name: &str| find(name).map(|codes| codes.reshape(-1));
        let categorical = find("cat_covs").map_or(Vec::new(), |c| (0..c.size()[1]).map(|i| c.select(1, i)).collect());
        let covariates = Covariates { condition: codes("batch").unwrap(), axes: vec![], categorical };
        let field = |name: &str| match name {
            LABELS => codes("labels"),
            CONTINUOUS => find("cont_covs"),
            other => find(other),
        };
        let field = |name: &str| field(name).unwrap_or_else(|| panic!("`{}` has no {group}/{name}", self.name));
        Minibatch::of_tensors(registry, self.tensor(&format!("{group}/x")), covariates, field)
    }

    pub(crate) fn tolerance(&self, kind: &str) -> Tolerance {
        let values = &self.json["tolerances"][kind];
        let value = |name: &str| values[name].as_f64().unwrap_or_else(|| panic!("`{}`: tolerance {kind}", self.name));
        Tolerance { rtol: value("rtol"), atol: value("atol") }
    }
}

impl Report {
    /// Compares one tensor of a case.
    pub(crate) fn close(&mut self, case: &Case, name: &str, ours: &Tensor, tolerance: Tolerance) {
        let theirs = case.tensor(name);
        self.tensors(&format!("{}: {name}", case.name), ours, &theirs, tolerance);
    }

    pub(crate) fn tensors(&mut self, what: &str, ours: &Tensor, theirs: &Tensor, tolerance: Tolerance) {
        self.n_compared += 1;
        record(what, ours);
        let (ours, theirs) = (ours.detach().to_kind(Kind::Double), theirs.to_kind(Kind::Double));
        if ours.numel() != theirs.numel() {
            self.failures.push(format!("{what}: {:?}, expected {:?}", ours.size(), theirs.size()));
            return;
        }
        let ours = ours.reshape_as(&theirs);
        let excess = (&ours - &theirs).abs() - (theirs.abs() * tolerance.rtol + tolerance.atol);
        let is_fine = excess.le(0.0).logical_or(&ours.eq_tensor(&theirs));
        let n_bad = theirs.numel() as f64 - is_fine.to_kind(Kind::Double).sum(Kind::Double).double_value(&[]);
        if n_bad > 0.0 {
            let worst = (&ours - &theirs).abs().max().double_value(&[]);
            self.failures.push(format!("{what}: {n_bad} of {} values differ, worst by {worst:.3e}", theirs.numel()));
        }
    }

    /// Checks a fact.
    pub(crate) fn holds(&mut self, what: &str, fact: bool) {
        self.n_compared += 1;
        if !fact {
            self.failures.push(what.to_owned());
        }
    }

    /// Compares all tensors of a group by upstream's name; those that our module does not hold must be as in `unchanged`.
    pub(crate) fn group(
        &mut self,
        case: &Case,
        prefix: &str,
        ours: &BTreeMap<String, Tensor>,
        unchanged: &str,
        tolerance: impl Fn(&str) -> Tolerance,
    ) {
        let theirs = case.group(prefix);
        for (name, _) in theirs.iter() {
            let full = format!("{prefix}{name}");
            match ours.get(name) {
                Some(tensor) => self.close(case, &full, tensor, tolerance(name)),
                None => {
                    let exact = Tolerance { rtol: 0.0, atol: 0.0 };
                    self.close(case, &full, &case.tensor(&format!("{unchanged}{name}")), exact);
                }
            }
        }
        for name in ours.keys().filter(|name| theirs.get(name).is_none()) {
            self.failures.push(format!("{}: {prefix} has no `{name}`", case.name));
        }
    }
}

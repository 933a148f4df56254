//! Commands as lines of text: `[@<ms>] <principal> <verb> <words>… [key=<n>]`.
//!
//! `@<ms>` is the leader's stamp, kept for the lines after it. Every line is a new request unless `key=` says that it
//! repeats one. Whoever has the key `k` of an invitation is `invited:k`. A blob is written as any word and stands for the digest of that word; every reference has the same
//! base. `v=<n>` is the n-th entry of the reference's lineage, counted from 0, and the current version where it is
//! left out.

use std::collections::BTreeMap;

use archipelago_cluster::{Applied, Body, Cluster, Command, Deed, Edition, Outcome, Refusal, Selection, invariants};
use archipelago_common::{
    BlobRef, ConditionKey, DType, Digest, Fingerprint, Layout, Name, NodeId, Principal, Section, TaskId, Version,
    VersionId,
    act::Anchored,
    enrolment::CertifiedKey,
    figure::{Better, Figure},
    layout::{Axis, Derivation, Rule},
    member::Incarnation,
    part,
    policy::EmbeddingRelease,
    pool::TableSpec,
    record::{BaseSummary, Progress, Submission, SubmittedCondition},
    signature::{Signature, Statement},
    state_dict::TensorSpec,
    task::{Bound, ConditionMetrics, PublishMode, QualityGates, Stopping, SurgeryTask, TrainSpec, Warmup},
};

/// A state machine and the log that led to its state.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) cluster: Cluster,
    pub(crate) log: Vec<Command>,
    now_ms: u64,
    n_lines: u64,
}

impl Default for Script {
    fn default() -> Self {
        Self { cluster: Cluster::founded(), log: Vec::new(), now_ms: 0, n_lines: 0 }
    }
}

impl Script {
    /// Of a cluster that an earlier build founded.
    pub(crate) fn first_edition() -> Self {
        Self { cluster: Cluster::default(), ..Self::default() }
    }

    /// Applies several lines, none of which may be refused.
    pub(crate) fn after(lines: &str) -> Self {
        let mut script = Self::default();
        script.run(lines);
        script
    }

    /// Applies several lines, none of which may be refused.
    pub(crate) fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.ask(line).unwrap_or_else(|refusal| panic!("`{line}` was refused: {refusal}"));
        }
    }

    /// The answer to one line.
    pub(crate) fn ask(&mut self, line: &str) -> Result<Outcome, Refusal> {
        self.apply(line).outcome
    }

    /// Applies one line. Whatever it is: the invariants hold afterwards, and if it was refused the state is the same
    /// as if only time had passed.
    pub(crate) fn apply(&mut self, line: &str) -> Applied {
        let command = self.parse(line);
        let mut only_time = self.cluster.clone();
        let applied = self.cluster.apply(&command);
        if applied.outcome.is_err() {
            only_time.apply(&Command { principal: principal("coordinator/1"), body: Body::Tick, ..command.clone() });
            assert_eq!(self.cluster, only_time, "`{line}` was refused but changed the state");
        }
        invariants::check(&self.cluster).unwrap_or_else(|broken| panic!("after `{line}`: {broken}"));
        self.log.push(command);
        applied
    }

    /// Applies a line that may not be refused, without a look at every invariant: for many lines.
    pub(crate) fn quiet(&mut self, line: &str) {
        self.ask_quietly(line).unwrap_or_else(|refusal| panic!("`{line:.80}` was refused: {refusal}"));
    }

    /// The answer to a line, without a look at every invariant.
    pub(crate) fn ask_quietly(&mut self, line: &str) -> Result<Outcome, Refusal> {
        let command = self.parse(line);
        let outcome = self.cluster.apply(&command).outcome;
        self.log.push(command);
        outcome
    }

    /// The current version of the reference `atlas`.
    pub(crate) fn current(&self) -> VersionId {
        self.cluster.reference(&name("atlas")).expect("`atlas` was published").current()
    }

    /// The batches of the current version of `atlas`, in the order of their keys.
    pub(crate) fn conditions(&self) -> Vec<String> {
        let atlas = self.cluster.reference(&name("atlas")).expect("`atlas` was published");
        atlas.columns().keys().map(ToString::to_string).collect()
    }

    fn parse(&mut self, line: &str) -> Command {
        self.n_lines += 1;
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if let Some(stamp) = words[0].strip_prefix('@') {
            self.now_ms = number(stamp);
            words.remove(0);
        }
        let (asker, verb) = (principal(words[0]), words[1]);
        let is_option = |word: &&str| word.contains('=') && !word.contains('/') && !word.starts_with(char::is_numeric);
        let (options, plain): (Vec<&str>, Vec<&str>) = words[2..].iter().partition(|word| is_option(word));
        let options = Options(options.iter().filter_map(|word| word.split_once('=')).collect());
        let key = options.read("key").unwrap_or(self.n_lines | 1 << 32);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        Command { key: bytes, principal: asker, now_ms: self.now_ms, body: self.body(verb, &plain, &options) }
    }

    fn body(&self, verb: &str, words: &[&str], options: &Options<'_>) -> Body {
        let task = || words[0].parse::<TaskId>().unwrap();
        match verb {
            "tick" => Body::Tick,
            "add-site" => Body::AddSite { site: words[0].parse().unwrap() },
            "revoke-site" => Body::RevokeSite { site: words[0].parse().unwrap() },
            "publish-reference" => publish_reference(words, options),
            "publish-task" => {
                let (task, gates) = (Box::new(self.task(words[0], options)), gates(options));
                match options.read("signed") {
                    Some(signed_ms) => {
                        let statement = Statement::of_task(&task, signed_ms).unwrap();
                        Body::PublishSignedTask { task, gates, signature: signature(statement) }
                    }
                    None if gates.is_open() => Body::PublishTask(task),
                    None => Body::PublishGatedTask { task, gates },
                }
            }
            "raise-edition" => Body::RaiseEdition { edition: Edition::of_number(number(words[0]) as u32).unwrap() },
            "agree-on-time" => Body::AgreeOnTime { clocks: words.iter().map(|word| clock(word)).collect() },
            "grant" => {
                let (site, bytes, limit) = (words[0].parse().unwrap(), number(words[1]), number(words[2]));
                Body::Grant { site, bytes, limit }
            }
            "set-clock" => Body::SetClock { now_ms: number(words[0]) },
            "introduce" => {
                let (node, incarnation) = words[0].split_once('=').unwrap();
                Body::Introduce { node: node.parse().unwrap(), incarnation: Incarnation(number(incarnation)) }
            }
            "adopt-members" => Body::AdoptMembers { addresses: words.iter().map(|word| member(word)).collect() },
            "add-member" => {
                let (node, address) = member(words[0]);
                Body::AddMember { node, address }
            }
            "promote-member" => Body::PromoteMember { node: words[0].parse().unwrap() },
            "remove-member" => Body::RemoveMember { node: words[0].parse().unwrap() },
            "invite" => Body::Invite {
                site: words[0].parse().unwrap(),
                invitation: key(words[1]),
                expires_ms: number(words[2]),
            },
            "ask" => Body::RequestCertificate { key: key(words[0]), request: words[0].to_owned() },
            "approve" => {
                let certified = CertifiedKey { key: key(words[1]), expires_ms: 1_000_000 };
                Body::ApproveSite { site: words[0].parse().unwrap(), certified, certificate: words[1].to_owned() }
            }
            "renew-certificate" => {
                let (key, request) = (key(words[0]), words[0].to_owned());
                let site = options.read("for").unwrap_or_else(|| "north".parse().unwrap());
                let signature = signature(Statement::of_renewal(&site, &request, self.now_ms));
                Body::RenewCertificate { key, request, signature }
            }
            "note" => {
                let certified = CertifiedKey { key: key(words[1]), expires_ms: number(words[2]) };
                Body::NoteCertificate { who: principal(words[0]), certified }
            }
            "revoke" => {
                let key = options.text("shut").map(key);
                Body::Revoke { who: principal(words[0]), key, reason: words[1..].join(" ") }
            }
            "demand" => Body::Demand { demand: words[0].parse().unwrap(), holds: true },
            "lift" => Body::Demand { demand: words[0].parse().unwrap(), holds: false },
            // `propose with=<key> <verb> <words>`, `approve-proposal <number> with=<key>`
            "propose" => {
                let deed = Deed::of(&self.body(words[0], &words[1..], options)).expect("what two persons may do");
                Body::Propose { deed: Box::new(deed), key: key(options.text("with").unwrap()) }
            }
            "approve-proposal" => {
                Body::ApproveProposal { number: number(words[0]), key: key(options.text("with").unwrap()) }
            }
            "decline-proposal" => Body::DeclineProposal { number: number(words[0]), reason: words[1..].join(" ") },
            "refuse" => Body::RefuseSite { site: words[0].parse().unwrap(), reason: words[1..].join(" ") },
            "close-task" => Body::CloseTask { task: task() },
            "cancel-task" => Body::CancelTask { task: task() },
            "claim" => Body::Claim { task: task() },
            "renew" => {
                let progress =
                    Progress { epochs_done: number(words[2]), epochs_planned: 100, loss: options.read("loss") };
                Body::Renew { task: task(), epoch: number(words[1]), progress }
            }
            "give-up" => Body::GiveUp { task: task(), epoch: number(words[1]), reason: words[2..].join(" ") },
            "submit" => Body::Submit(self.submission(task(), number(words[1]), &words[2..], options)),
            "erase" => Body::Erase { reference: name(words[0]), selection: selection(&words[1..]) },
            "anchor" => {
                let hashes: Vec<_> = words[1..].iter().map(|word| Digest::of(word.as_bytes())).collect();
                let head = Digest::of(options.text("head").unwrap_or_default().as_bytes());
                Body::Anchor { after: Anchored { n_records: number(words[0]), head }, hashes }
            }
            "withdraw" => Body::Withdraw { reference: name(words[0]), selection: selection(&words[1..]) },
            "derive" => {
                let (value, result) = (name(words[1]), BlobRef::of(words[2].as_bytes()));
                Body::Derive { reference: name(words[0]), version: self.version(words[0], options), value, result }
            }
            other => panic!("`{other}` is not a verb of the script"),
        }
    }

    /// The n-th version in the lineage of a reference; one that never was where there is no such entry.
    fn version(&self, reference: &str, options: &Options<'_>) -> VersionId {
        let Some(record) = self.cluster.reference(&name(reference)) else { return unknown_version() };
        match options.read::<usize>("v") {
            None => record.current(),
            Some(event_idx) => record.changes().get(event_idx).map_or_else(unknown_version, |change| change.version),
        }
    }

    fn task(&self, reference: &str, options: &Options<'_>) -> SurgeryTask {
        let version = self.version(reference, options);
        let train = match options.text("train") {
            Some("asked") => TrainSpec { seed: 7, ..TrainSpec::default() },
            _ => TrainSpec { weight_decay: options.read("weight-decay").or(Some(0.0)), ..all_said() },
        };
        let mut task = SurgeryTask::new(name(reference), version, train);
        task.asks = options.read("asks").unwrap_or_default();
        task.publish = options.read("publish").unwrap_or(PublishMode::Each);
        task.allow =
            options.text("allow").map(|sites| sites.split_terminator(',').map(|site| site.parse().unwrap()).collect());
        task.deadline_ms = options.read("deadline");
        task.lease_ms = options.read("lease").unwrap_or(60_000);
        task.min_cells = options.read("min-cells").unwrap_or(task.min_cells);
        task.max_column_norm = options.read("norm").unwrap_or(task.max_column_norm);
        if options.text("embeddings") == Some("full") {
            task.embeddings = EmbeddingRelease::Full;
        }
        task
    }

    fn submission(&self, task: TaskId, epoch: u64, words: &[&str], options: &Options<'_>) -> Submission {
        let asked = self.cluster.task(task);
        let version = match options.text("v") {
            Some(_) => self.version("atlas", options),
            None => asked.map_or_else(unknown_version, |record| record.task.version),
        };
        let metrics = options.read("cells").map(|n_cells| ConditionMetrics {
            n_cells,
            epochs: 50,
            gene_coverage: options.read("coverage").unwrap_or(1.0),
            figures: figures(options),
            training_ms: options.read("training").unwrap_or(1_000),
            deterministic: true,
        });
        let embeddings = options.text("embeddings").map(|word| BlobRef::of(word.as_bytes()));
        let condition = |(key, mut columns): (ConditionKey, BlobRef)| {
            columns.size = options.read("size").unwrap_or(columns.size);
            (key, SubmittedCondition { columns, embeddings, metrics: metrics.clone() })
        };
        Submission { task, epoch, version, conditions: columns(words).into_iter().map(condition).collect() }
    }
}

/// The words `name=value` of a line.
struct Options<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Options<'a> {
    fn text(&self, option: &str) -> Option<&'a str> {
        self.0.get(option).copied()
    }

    fn read<T: std::str::FromStr>(&self, option: &str) -> Option<T> {
        self.text(option).map(|text| text.parse().unwrap_or_else(|_| panic!("`{option}={text}` does not parse")))
    }
}

fn publish_reference(words: &[&str], options: &Options<'_>) -> Body {
    let spec = TensorSpec { dtype: DType::F32, shape: vec![8] };
    let summary = BaseSummary {
        model: "scvi".to_owned(),
        n_genes: 2_000,
        columns: BTreeMap::from([("encoder.0.covariates".to_owned(), spec)]),
        moves_embedding: true,
    };
    let base = BlobRef::of(b"base");
    let version = Version { base, columns: columns(&words[1..]) };
    let (name, summary) = (name(words[0]), Box::new(summary));
    if let Some(signed_ms) = options.read("signed") {
        let signature = signature(Statement::of_reference(&name, version.id(), signed_ms));
        let layout = Box::new(layout(&summary, options).unwrap_or_else(|| summary.layout()));
        return Body::PublishSignedReference { name, version, summary, layout, signature };
    }
    match layout(&summary, options) {
        None => Body::PublishReference { name, version, summary },
        Some(layout) => Body::PublishLaidOutReference { name, version, summary, layout: Box::new(layout) },
    }
}

/// Of the right thing, by nobody: the state machine does not look at who signed.
fn signature(Statement { of, signed_ms, .. }: Statement) -> Box<Signature> {
    Box::new(Signature { of, signed_ms, chain: vec![vec![0x30, 0]], scheme: 0x0403, bytes: vec![7; 8] })
}

/// `axes=donor,...` and `parts=models,counts,...`, where `counts` is a pool and any other part a union; with `figures=accuracy` its model
/// reports an accuracy beside the usual figures.
fn layout(summary: &BaseSummary, options: &Options<'_>) -> Option<Layout> {
    let listed = |option| options.text(option).map(|names: &str| names.split(',').map(name).collect::<Vec<_>>());
    let (axes, parts) = (listed("axes"), listed("parts"));
    if axes.is_none() && parts.is_none() && options.text("figures").is_none() {
        return None;
    }
    let mut layout = summary.layout();
    let further = |axis: Name| Axis::new(Section::Axis(axis), BTreeMap::new());
    layout.axes.extend(axes.into_iter().flatten().map(further));
    let counted = || BTreeMap::from([("n".to_owned(), TableSpec::counts(&[]))]);
    let rule = |part: &Name| if part.as_str() == "counts" { Rule::Pool { tables: counted() } } else { Rule::Union };
    let derivation = || Derivation { function: part::SUM.parse().unwrap(), part: name("counts") };
    if parts.as_ref().is_some_and(|parts| parts.contains(&name("counts"))) {
        layout.derived.insert(name("totals"), derivation());
    }
    layout.parts.extend(parts.into_iter().flatten().map(|part| (part.clone(), rule(&part))));
    layout.figures.extend(options.text("figures").map(|name| Figure {
        name: name.to_owned().into(),
        title: name.to_owned().into(),
        unit: "share of cells".into(),
        better: Better::Higher,
        opposed_to: None,
    }));
    Some(layout)
}

/// Words `owner/dataset/batch=blob`.
fn columns(words: &[&str]) -> BTreeMap<ConditionKey, BlobRef> {
    let column = |word: &&str| {
        let (key, blob) = word.split_once('=').unwrap_or_else(|| panic!("`{word}` names no blob"));
        (key.parse().unwrap(), BlobRef::of(blob.as_bytes()))
    };
    words.iter().map(column).collect()
}

/// What `publish-task` asks of quality; its options have the names of those of `submit` that they bound.
/// How tasks were trained before anything could be left to the model.
fn all_said() -> TrainSpec {
    TrainSpec {
        epochs: None,
        minibatch: Some(128),
        learning_rate: Some(1e-3),
        adam_eps: Some(0.01),
        weight_decay: Some(0.0),
        kl_warmup: Some(Warmup::Epochs(400)),
        train_size: Some(0.9),
        early_stopping: Some(Stopping::Never),
        ..TrainSpec::default()
    }
}

/// The usual figures, and an accuracy where one is given.
fn figures(options: &Options<'_>) -> BTreeMap<String, f64> {
    let usual = [("elbo", Some(-500.0)), ("reconstruction", Some(480.0)), ("accuracy", None)];
    let given = usual.map(|(name, usual)| Some((name.to_owned(), options.read(name).or(usual)?)));
    given.into_iter().flatten().collect()
}

fn gates(options: &Options<'_>) -> QualityGates {
    let elbo = options.read("elbo").map(|least| ("elbo", Bound::AtLeast(least)));
    let reconstruction = options.read("reconstruction").map(|most| ("reconstruction", Bound::AtMost(most)));
    let accuracy = options.read("accuracy").map(|least| ("accuracy", Bound::AtLeast(least)));
    let bounds = [elbo, reconstruction, accuracy].into_iter().flatten();
    QualityGates {
        min_gene_coverage: options.read("coverage").unwrap_or(0.0),
        bounds: bounds.map(|(name, bound)| (name.to_owned(), bound)).collect(),
    }
}

/// A key is written as any word.
pub(crate) fn key(word: &str) -> Fingerprint {
    Fingerprint::of(word.as_bytes())
}

/// Reads `<node>=<ms>`.
fn clock(word: &str) -> (NodeId, u64) {
    let (node, ms) = word.split_once('=').unwrap_or_else(|| panic!("`{word}` shows no time"));
    (node.parse().unwrap(), number(ms))
}

/// Reads `<node>@<address>`.
fn member(word: &str) -> (NodeId, String) {
    let (node, address) = word.split_once('@').unwrap_or_else(|| panic!("`{word}` names no address"));
    (node.parse().unwrap(), address.to_owned())
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn principal(text: &str) -> Principal {
    match text.strip_prefix("invited:") {
        Some(word) => Principal::Invited(key(word)),
        None => text.parse().unwrap(),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is not a number"))
}

fn unknown_version() -> VersionId {
    VersionId(BlobRef::of(b"a version that never was").digest)
}

/// Two sites, a reference, and a task with leases of a minute.
pub(crate) const OPEN_TASK: &str = "
    @1000 operator/anna add-site a
    operator/anna add-site b
    operator/anna publish-reference atlas anna/lung/ref=r
    operator/anna publish-task atlas";

/// [`OPEN_TASK`], but merged when it closes.
pub(crate) const OPEN_TASK_AT_CLOSE: &str = "
    @1000 operator/anna add-site a
    operator/anna add-site b
    operator/anna publish-reference atlas anna/lung/ref=r
    operator/anna publish-task atlas publish=at-close";

fn selection(words: &[&str]) -> Selection {
    match words[0].contains('/') {
        false => Selection::Site(words[0].parse().unwrap()),
        true => Selection::Keys(words.iter().map(|key| key.parse().unwrap()).collect()),
    }
}

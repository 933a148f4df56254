//! What the policy lets through and what it keeps.

use std::collections::BTreeMap;

use archipelago_common::{
    Section,
    layout::{Owned, Rule},
    pool::{Pool, TableSpec},
    state_dict::{Tensor, TensorSpec},
    tree::{self, Machines},
};

use super::*;
use crate::audit::{AuditTrail, Kind};

struct Site {
    gate: Gate,
    dir: tempfile::TempDir,
    is_identifying: bool,
}

impl Site {
    fn new(policy: SitePolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let audit = AuditLog::open(&dir.path().join("audit.jsonl")).unwrap();
        let noise = SiteSecret::open(&dir.path().join("noise.key")).unwrap();
        let ledger = Ledger::open(&dir.path().join("ledger.jsonl")).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let gate = Gate::new("north".parse().unwrap(), policy, noise, (audit, ledger), metrics);
        Self { gate, dir, is_identifying: false }
    }

    fn trail(&self) -> AuditTrail {
        AuditTrail::read(&self.dir.path().join("audit.jsonl")).unwrap()
    }

    fn release(&mut self, columns: &Columns, n_cells: u64, n_donors: Option<u64>) -> Result<Released<Columns>> {
        let frozen = Digest::of(b"frozen");
        self.gate.release_columns(&TrainedCondition {
            task: TaskId(1),
            key: &key(),
            columns,
            layout: &layout(),
            cells: cells(n_cells),
            n_donors,
            frozen_before: frozen,
            frozen_after: frozen,
        })
    }

    fn embeddings(&mut self, asked: EmbeddingRelease, donors: Option<&[Option<String>]>) -> Option<Embeddings> {
        let labels = ["a", "a", "a", "b"].map(|l| Some(l.to_owned()));
        let latent = Latent { n_latent: 2, values: vec![4.0, 0.0, 2.0, 3.0, 0.0, 3.0, 9.0, 9.0] };
        let is_identifying = self.is_identifying;
        let cells = MappedCells {
            task: TaskId(1),
            key: &key(),
            cells: cells(4),
            latent: &latent,
            labels: Some(&labels),
            donors,
            is_identifying,
        };
        self.gate.release_embeddings(asked, &cells).unwrap().map(|released| released.value)
    }
}

fn cells(n_cells: u64) -> CellSet {
    CellSet { digest: Digest::of(b"cells"), n_cells }
}

fn key() -> ConditionKey {
    "north/pbmc/b1".parse().unwrap()
}

fn columns(values: &[f32]) -> Columns {
    Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[values.len()], values))]))
}

/// Conditions that own two trained numbers, a statistic and a fact.
fn layout() -> Layout {
    let owned = |kind| Owned { spec: TensorSpec { dtype: DType::F32, shape: vec![2] }, kind };
    let kinds = [("w", TensorKind::Trained), ("prior", TensorKind::Statistic), ("measured", TensorKind::Fact)];
    let tensors = kinds.map(|(name, kind)| (name.to_owned(), owned(kind))).into_iter().collect();
    Layout::of_axes(vec![Axis::new(Section::Condition, tensors)])
}

/// Columns of every kind.
fn mixed(w: &[f32; 2], prior: &[f32; 2], measured: &[f32; 2]) -> Columns {
    let named = [("w", w), ("prior", prior), ("measured", measured)];
    Columns(named.map(|(name, values)| (name.to_owned(), Tensor::from_f32(&[2], values))).into_iter().collect())
}

fn values_of(columns: &Columns, name: &str) -> Vec<f32> {
    columns.0.get(name).unwrap().to_f32(name).unwrap()
}

fn values(columns: &Columns) -> Vec<f32> {
    columns.0.get("w").unwrap().to_f32("w").unwrap()
}

fn means(min_cells: u64, min_donors: u64) -> EmbeddingRelease {
    EmbeddingRelease::LabelMeans { min_cells, min_donors }
}

#[test]
fn the_default_policy_lets_columns_out_as_they_are_and_records_them() {
    let mut site = Site::new(SitePolicy::default());
    let given = columns(&[3.0, 4.0]);
    let released = site.release(&given, 100, None).unwrap();
    assert_eq!(released.value(), &given);
    let entry = &site.trail().entries[0];
    assert_eq!(entry.release.digest, released.blob().digest);
    assert_eq!(entry.release.digest, Digest::of(&given.to_bytes()));
    assert_eq!((entry.release.kind, entry.release.condition.clone()), (Kind::Columns, Some(key())));
    assert_eq!(site.gate.metrics.released_bytes(Kind::Columns), released.blob().size);
}

#[test]
fn a_policy_without_columns_keeps_them_and_records_nothing() {
    let mut site = Site::new(SitePolicy { columns: false, ..SitePolicy::default() });
    assert!(matches!(site.release(&columns(&[1.0]), 100, None), Err(Error::Withheld { .. })));
    assert!(site.trail().entries.is_empty());
}

#[test]
fn small_conditions_stay_at_home() {
    let mut site = Site::new(SitePolicy { min_cells: 50, min_donors: 3, ..SitePolicy::default() });
    assert!(site.release(&columns(&[1.0]), 49, Some(3)).is_err());
    assert!(site.release(&columns(&[1.0]), 50, Some(2)).is_err());
    assert!(site.release(&columns(&[1.0]), 50, None).is_err());
    assert!(site.release(&columns(&[1.0]), 50, Some(3)).is_ok());
}

#[test]
fn columns_are_clipped_to_the_norm() {
    let mut site = Site::new(SitePolicy { clip_norm: Some(1.0), ..SitePolicy::default() });
    assert_eq!(values(site.release(&columns(&[3.0, 4.0]), 100, None).unwrap().value()), [0.6, 0.8]);
    assert_eq!(values(site.release(&columns(&[0.3, 0.4]), 100, None).unwrap().value()), [0.3, 0.4]);
}

#[test]
fn noise_changes_every_number_and_a_repetition_changes_nothing() {
    let mut site = Site::new(SitePolicy { noise_std: 0.5, ..SitePolicy::default() });
    let first = values(site.release(&columns(&[3.0, 4.0]), 100, None).unwrap().value());
    assert!(first.iter().zip([3.0, 4.0]).all(|(noisy, given)| *noisy != given));
    assert_eq!(first, values(site.release(&columns(&[3.0, 4.0]), 100, None).unwrap().value()));
}

#[test]
fn a_fact_is_neither_clipped_nor_noised_and_counts_into_no_norm() {
    let policy = SitePolicy { clip_norm: Some(5.0), noise_std: 1e-4, ..SitePolicy::default() };
    let released = Site::new(policy.clone()).release(&mixed(&[3.0, 4.0], &[0.0, 0.0], &[1.0, 0.0]), 100, None).unwrap();
    assert_eq!(values_of(released.value(), "measured"), [1.0, 0.0]);
    // Their norm is the bound without the fact, so nothing but the noise moved them.
    let w = values_of(released.value(), "w");
    assert!((w[0] - 3.0).abs() < 1e-2 && (w[1] - 4.0).abs() < 1e-2 && w != [3.0, 4.0], "{w:?}");
    let clipped = Site::new(policy).release(&mixed(&[30.0, 40.0], &[0.0, 0.0], &[1.0, 1.0]), 100, None).unwrap();
    assert_eq!(values_of(clipped.value(), "measured"), [1.0, 1.0]);
}

#[test]
fn a_statistic_is_protected_apart_from_what_is_trained() {
    let policy = SitePolicy { clip_norm: Some(1.0), ..SitePolicy::default() };
    let released = Site::new(policy).release(&mixed(&[0.3, 0.4], &[3.0, 4.0], &[0.0, 0.0]), 100, None).unwrap();
    assert_eq!(values_of(released.value(), "w"), [0.3, 0.4]);
    assert_eq!(values_of(released.value(), "prior"), [0.6, 0.8]);
    let policy = SitePolicy { noise_std: 0.5, ..SitePolicy::default() };
    let noisy = Site::new(policy).release(&mixed(&[0.3, 0.4], &[3.0, 4.0], &[0.0, 0.0]), 100, None).unwrap();
    assert!(values_of(noisy.value(), "prior").iter().zip([3.0, 4.0]).all(|(noisy, given)| *noisy != given));
}

#[test]
fn a_policy_without_facts_keeps_what_has_some_and_what_is_no_fact_stays_too() {
    let mut site = Site::new(SitePolicy { facts: false, ..SitePolicy::default() });
    let columns = mixed(&[0.3, 0.4], &[3.0, 4.0], &[0.0, 1.0]);
    let Err(Error::Withheld { reason, .. }) = site.release(&columns, 100, None) else { panic!("withheld") };
    assert!(reason.contains("`measured`"), "{reason}");
    let mut site = Site::new(SitePolicy::default());
    let no_fact = mixed(&[0.3, 0.4], &[3.0, 4.0], &[0.5, 1.0]);
    assert!(matches!(site.release(&no_fact, 100, None), Err(Error::Withheld { .. })));
    assert!(site.trail().entries.is_empty());
}

#[test]
fn a_moved_frozen_part_lets_nothing_out() {
    let mut site = Site::new(SitePolicy::default());
    let result = site.gate.release_columns(&TrainedCondition {
        task: TaskId(1),
        key: &key(),
        columns: &columns(&[1.0]),
        layout: &layout(),
        cells: cells(100),
        n_donors: None,
        frozen_before: Digest::of(b"before"),
        frozen_after: Digest::of(b"after"),
    });
    assert!(matches!(result, Err(Error::FrozenMoved { .. })));
    assert!(site.trail().entries.is_empty());
}

#[test]
fn diverged_columns_stay_at_home() {
    let mut site = Site::new(SitePolicy::default());
    assert!(matches!(site.release(&columns(&[f32::NAN]), 100, None), Err(Error::Diverged { .. })));
}

#[test]
fn no_task_gets_more_embeddings_than_the_policy_allows() {
    let mut site = Site::new(SitePolicy::default());
    assert_eq!(site.embeddings(EmbeddingRelease::Full, None), None);
    let mut site = Site::new(SitePolicy { embeddings: means(3, 0), ..SitePolicy::default() });
    let Some(Embeddings::LabelMeans(means)) = site.embeddings(EmbeddingRelease::Full, None) else { panic!("means") };
    assert_eq!(
        means.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), LabelMean { n_cells: 3, mean: vec![2.0, 2.0] })]
    );
    assert_eq!(site.trail().entries[0].release.kind, Kind::LabelMeans);
}

#[test]
fn places_that_identify_people_leave_as_means_of_enough_cells_only() {
    let open = SitePolicy { embeddings: EmbeddingRelease::Full, min_cells: 3, ..SitePolicy::default() };
    let of = |policy: &SitePolicy| {
        let mut site = Site::new(policy.clone());
        site.is_identifying = true;
        site.embeddings(EmbeddingRelease::Full, None)
    };
    let Some(Embeddings::LabelMeans(means)) = of(&open) else { panic!("no single place") };
    assert_eq!(means.keys().collect::<Vec<_>>(), ["a"], "of `b` there is one cell, of 3");
    let lower = SitePolicy { embeddings: self::means(1, 0), ..open.clone() };
    let Some(Embeddings::LabelMeans(means)) = of(&lower) else { panic!("means") };
    assert_eq!(means.len(), 1, "the policy's threshold of conditions holds for means too");
    assert_eq!(of(&SitePolicy { min_cells: 4, ..open }), None);
    assert_eq!(of(&SitePolicy::default()), None);
}

#[test]
fn label_means_need_enough_donors() {
    let policy = SitePolicy { embeddings: means(1, 2), ..SitePolicy::default() };
    let donors = ["x", "y", "y", "x"].map(|d| Some(d.to_owned()));
    let Some(Embeddings::LabelMeans(found)) = Site::new(policy.clone()).embeddings(means(1, 1), Some(&donors)) else {
        panic!("means")
    };
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(Site::new(policy).embeddings(means(1, 1), None), None);
}

#[test]
fn rows_of_embeddings_leave_in_an_order_that_says_nothing() {
    let mut site = Site::new(SitePolicy { embeddings: EmbeddingRelease::Full, ..SitePolicy::default() });
    let Some(Embeddings::Cells(latent)) = site.embeddings(EmbeddingRelease::Full, None) else { panic!("cells") };
    assert_eq!(latent.values, [0.0, 3.0, 2.0, 3.0, 4.0, 0.0, 9.0, 9.0]);
}

#[test]
fn without_metrics_no_figures_leave_and_losses_never_do() {
    let mut site = Site::new(SitePolicy { metrics: false, ..SitePolicy::default() });
    let progress = Progress { epochs_done: 1, epochs_planned: 2, loss: Some(5.0) };
    assert_eq!(site.gate.release_progress(TaskId(1), progress).unwrap().value().loss, None);
    let metrics = ConditionMetrics {
        n_cells: 1,
        epochs: 1,
        gene_coverage: 1.0,
        figures: [("elbo".to_owned(), -1.0)].into(),
        training_ms: 1,
        deterministic: true,
    };
    assert!(site.gate.release_metrics(TaskId(1), &key(), metrics, 0).unwrap().is_none());
    assert_eq!(site.trail().entries.len(), 1);
}

/// Thirty T cells of three donors and ten B cells of one, counted.
fn counted() -> Contribution {
    let mut pool = Pool::new(BTreeMap::from([("n".to_owned(), TableSpec::counts(&[]))]));
    pool.add("T", "n", 0, 30.0).unwrap();
    pool.add("B", "n", 0, 10.0).unwrap();
    let cells = [("T", 0..30), ("B", 30..40)].map(|(label, cells)| (label.to_owned(), cells.collect()));
    Contribution { part: "counts".parse().unwrap(), value: Member::Sums(pool), cells: cells.into() }
}

fn with_parts(min_cells: u64, min_donors: u64) -> SitePolicy {
    SitePolicy { parts: Some(PartRelease { min_cells, min_donors }), noise_std: 0.5, ..SitePolicy::default() }
}

fn release_part(site: &mut Site, key: &str, donors: Donors) -> Result<ReleasedPart> {
    let (mut layout, contribution) = (layout(), counted());
    let Member::Sums(pool) = &contribution.value else { unreachable!() };
    layout.parts.insert("counts".parse().unwrap(), Rule::Pool { tables: pool.specs().clone() });
    let named: Vec<_> =
        (0..40).map(|cell| Some(if cell < 30 { format!("d{}", cell % 3) } else { "d0".to_owned() })).collect();
    let donors = matches!(donors, Donors::Known).then_some(&named[..]);
    let key = key.parse().unwrap();
    site.gate.release_part(&ContributingCells {
        task: TaskId(1),
        key: &key,
        cells: cells(40),
        contribution: &contribution,
        donors,
        layout: &layout,
    })
}

#[derive(Clone, Copy)]
enum Donors {
    Known,
    Unknown,
}

const PART: &str = "north/pbmc+counts/b1";

fn entries(released: &ReleasedPart) -> Vec<String> {
    let Some(Released { value: Member::Sums(pool), .. }) = &released.member else { return vec![] };
    pool.entries().map(str::to_owned).collect()
}

#[test]
fn parts_stay_at_home_unless_the_policy_says_otherwise() {
    let mut site = Site::new(SitePolicy::default());
    let ReleasedPart { member, withheld } = release_part(&mut site, PART, Donors::Known).unwrap();
    assert!(member.is_none());
    assert_eq!(withheld.as_deref(), Some("the policy lets no parts out"));
    assert!(site.trail().entries.is_empty());
}

#[test]
fn what_a_task_asks_for_decides_which_word_of_the_policy_counts() {
    let policy = |columns, parts| SitePolicy { columns, parts, ..SitePolicy::default() };
    let obstacle = |policy: SitePolicy, asks| obstacle(&policy, asks);
    let (some, none) = (Some(PartRelease::default()), None);
    for asks in [Asks::Parts, Asks::Annotations] {
        assert_eq!(obstacle(policy(false, some), asks), None);
        assert_eq!(obstacle(policy(true, none), asks), Some("the policy lets no parts out"));
    }
    for asks in [Asks::Both, Asks::Columns] {
        assert_eq!(obstacle(policy(true, none), asks), None);
        assert_eq!(obstacle(policy(false, some), asks), Some("the policy lets no columns out"));
    }
}

#[test]
fn a_part_leaves_without_noise_and_is_recorded() {
    let mut site = Site::new(with_parts(0, 0));
    let ReleasedPart { member, withheld } = release_part(&mut site, PART, Donors::Unknown).unwrap();
    let released = member.unwrap();
    assert_eq!(withheld, None);
    assert_eq!(*released.value(), counted().value);
    let entry = &site.trail().entries[0].release;
    assert_eq!((entry.kind, entry.digest), (Kind::Parts, Digest::of(&counted().value.to_bytes())));
    assert_eq!(entry.condition, Some(PART.parse().unwrap()));
    assert_eq!(site.gate.metrics.released_bytes(Kind::Parts), entry.size);
}

#[test]
fn entries_of_too_few_cells_or_donors_stay_at_home() {
    let released = |policy, donors| release_part(&mut Site::new(policy), PART, donors).unwrap();
    let left = |policy, donors| entries(&released(policy, donors));
    assert_eq!(left(with_parts(10, 1), Donors::Known), ["B", "T"]);
    assert_eq!(left(with_parts(11, 0), Donors::Unknown), ["T"]);
    assert_eq!(left(with_parts(0, 2), Donors::Known), ["T"]);
    assert!(left(with_parts(31, 0), Donors::Known).is_empty() && left(with_parts(0, 1), Donors::Unknown).is_empty());
    let told = |policy, donors| released(policy, donors).withheld.unwrap();
    assert_eq!(told(with_parts(11, 0), Donors::Known), "`B`: it has 10 cells, the policy asks for 11");
    let unknown =
        "`B`: its donors are not known, the policy asks for 1; `T`: its donors are not known, the policy asks for 1";
    assert_eq!(told(with_parts(0, 1), Donors::Unknown), unknown);
}

#[test]
fn a_part_that_the_reference_does_not_take_stays_at_home() {
    let mut site = Site::new(with_parts(0, 0));
    let kept = release_part(&mut site, "north/pbmc+terms/b1", Donors::Known);
    assert!(matches!(kept, Err(Error::Withheld { .. })));
    assert!(site.trail().entries.is_empty());
}

#[test]
fn only_the_uplink_can_speak_to_a_coordinator() {
    fn sources(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let speaks = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        [concat!("put_", "blob("), concat!("Request", "::"), concat!("Client", "::connect")]
            .iter()
            .any(|w| text.contains(w))
    };
    let mut speakers: Vec<_> = sources(&src).into_iter().filter(speaks).collect();
    speakers.sort();
    assert_eq!(speakers, [src.join("egress/enrolment.rs"), src.join("egress/uplink.rs")]);
}

#[test]
fn columns_of_other_types_are_bounded_as_well() {
    let layout_of = |dtype| {
        let owned = Owned { spec: TensorSpec { dtype, shape: vec![2] }, kind: TensorKind::Trained };
        let tensors = BTreeMap::from([("w".to_owned(), owned)]);
        Layout::of_axes(vec![Axis::new(Section::Condition, tensors)])
    };
    let doubles = |values: [f64; 2]| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Columns([("w".to_owned(), Tensor::new("w", DType::F64, vec![2], bytes).unwrap())].into_iter().collect())
    };
    let clipped = SitePolicy { clip_norm: Some(1.0), ..SitePolicy::default() };
    let release = |policy: &SitePolicy, columns: &Columns, dtype| {
        let frozen = Digest::of(b"frozen");
        let trained = TrainedCondition {
            task: TaskId(1),
            key: &key(),
            columns,
            layout: &layout_of(dtype),
            cells: cells(100),
            n_donors: None,
            frozen_before: frozen,
            frozen_after: frozen,
        };
        Site::new(policy.clone()).gate.release_columns(&trained)
    };
    let released = release(&clipped, &doubles([3.0, 4.0]), DType::F64).unwrap();
    let numbers: Vec<f64> = released.value().0.get("w").unwrap().numbers().collect();
    assert!((numbers[0] - 0.6).abs() < 1e-12 && (numbers[1] - 0.8).abs() < 1e-12, "{numbers:?}");
    let poisoned = release(&SitePolicy::default(), &doubles([f64::NAN, 0.0]), DType::F64);
    assert!(matches!(poisoned, Err(Error::Diverged { .. })));
    let whole = Columns([("w".to_owned(), Tensor::from_i64(&[2], &[3, 4]))].into_iter().collect());
    release(&SitePolicy::default(), &whole, DType::I64).unwrap();
    let refused = release(&clipped, &whole, DType::I64).unwrap_err().to_string();
    assert!(refused.contains("can be neither clipped nor given noise"), "{refused}");
}

#[test]
fn cells_for_a_tree_leave_only_where_embeddings_do_and_never_a_type_of_few() {
    let types = [("B", 30), ("T", 10)].map(|(label, n)| (label.to_owned(), vec![0.5_f32; 2 * n]));
    let points = tree::Points { place: 0, n_dims: 2, types: types.into() };
    let cells = |range: std::ops::Range<usize>| range.collect::<Vec<_>>();
    let made_of =
        [(String::new(), cells(0..40)), (tree::tensor_of("B"), cells(0..30)), (tree::tensor_of("T"), cells(30..40))];
    let part = tree::POINTS.parse().unwrap();
    let contribution = Contribution { part, value: Member::Tensors(points.to_tensors()), cells: made_of.into() };
    let mut layout = layout();
    tree::declare(&mut layout, tree::Sharing::Points);
    let released = |embeddings| {
        let key = "north/pbmc+tree-points/b1".parse().unwrap();
        let (task, contribution, donors) = (TaskId(1), &contribution, None);
        let mut site = Site::new(SitePolicy { embeddings, ..with_parts(20, 0) });
        let of = self::cells(40);
        let cells = ContributingCells { task, key: &key, cells: of, contribution, donors, layout: &layout };
        site.gate.release_part(&cells).unwrap()
    };
    for kept in [EmbeddingRelease::None, EmbeddingRelease::LabelMeans { min_cells: 1, min_donors: 1 }] {
        let ReleasedPart { member, withheld } = released(kept);
        assert!(member.is_none() && withheld.unwrap().contains("no positions of cells"));
    }
    let ReleasedPart { member, withheld } = released(EmbeddingRelease::Full);
    let Some(Released { value: Member::Tensors(tensors), .. }) = &member else { panic!("cells") };
    assert!(tree::Points::from_tensors(tensors).unwrap().types.keys().eq(["B"]));
    assert_eq!(withheld.as_deref(), Some("`type/T`: it has 10 cells, the policy asks for 20"));
}

#[test]
fn a_machine_for_a_type_of_few_cells_stays_and_those_of_the_others_leave() {
    let weights = |label: &str| (label.to_owned(), vec![1.0, -1.0]);
    let machines = Machines { place: 0, types: ["B", "T"].map(weights).into(), components: None };
    let cells = |range: std::ops::Range<usize>| range.collect::<Vec<_>>();
    let made_of =
        [(String::new(), cells(0..40)), (tree::tensor_of("B"), cells(0..30)), (tree::tensor_of("T"), cells(30..40))];
    let part = tree::MACHINES.parse().unwrap();
    let contribution = Contribution { part, value: Member::Tensors(machines.to_tensors()), cells: made_of.into() };
    let mut layout = layout();
    tree::declare(&mut layout, tree::Sharing::Machines);
    let released = |min_cells| {
        let key = "north/pbmc+tree-machines/b1".parse().unwrap();
        let (task, contribution, donors) = (TaskId(1), &contribution, None);
        let mut site = Site::new(with_parts(min_cells, 0));
        let of = self::cells(40);
        let cells = ContributingCells { task, key: &key, cells: of, contribution, donors, layout: &layout };
        site.gate.release_part(&cells).unwrap()
    };
    let ReleasedPart { member, withheld } = released(20);
    let Some(Released { value: Member::Tensors(tensors), .. }) = &member else { panic!("machines") };
    assert!(Machines::from_tensors(tensors).unwrap().types.keys().eq(["B"]));
    assert_eq!(withheld.as_deref(), Some("`type/T`: it has 10 cells, the policy asks for 20"));
    assert!(released(35).member.is_none(), "machines without a type");
}

#[test]
fn the_page_for_governance_names_everything_that_leaves() {
    let page = include_str!("../../../docs/governance.md");
    for kind in Kind::ALL {
        assert!(page.contains(&format!("| `{}` |", kind.name())), "docs/governance.md lacks `{}`", kind.name());
    }
}

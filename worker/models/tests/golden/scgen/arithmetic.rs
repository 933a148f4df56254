//! `batch_removal`, `map_query_*`, `federated_*`, `predict`: cells that move by differences of means.

use archipelago_common::ConditionKey;
use archipelago_models::{
    data::Categorical,
    nn::{Mode, Pass, Trainable},
    zoo::scgen::{
        ScgenModule,
        arithmetic::{Anchor, difference, means, shift, shifts, shifts_onto},
        label_means,
    },
};

use serde_json::Value;
use tch::Tensor;

use super::setup::{self, Draws};
use crate::{
    case::{self, Case, Report},
    runner::upstream,
};

pub(super) fn is_one(name: &str) -> bool {
    is_removal(name) || is_federated(name) || name == "predict"
}

fn is_removal(name: &str) -> bool {
    name == "batch_removal" || name.starts_with("map_query_")
}

fn is_federated(name: &str) -> bool {
    name.starts_with("federated_")
}

/// What removing batch effects makes of cells.
struct Removed {
    latent: Tensor,
    shifted: Tensor,
    corrected: Tensor,
    latent_corrected: Tensor,
    shifts: Vec<archipelago_models::zoo::scgen::arithmetic::Shift>,
}

fn remove(
    module: &ScgenModule,
    x: &Tensor,
    (labels, groups): (&Categorical, &Categorical),
    anchor: &Anchor,
    (mode, draws): (Mode, [Tensor; 2]),
) -> Removed {
    let _guard = tch::no_grad_guard();
    let mut noise = Draws::of(draws.into());
    let mut pass = Pass { mode, noise: &mut noise };
    let latent = module.draw(x, &mut pass);
    let mut moved = setup::rows(&latent);
    let shifts = shifts(&means(moved.view(), labels, groups), anchor);
    shift(&mut moved, labels, groups, &shifts);
    let shifted = setup::tensor(&moved);
    let corrected = module.decode(&shifted, &mut pass);
    let latent_corrected = module.draw(&corrected, &mut pass);
    Removed { latent, shifted, corrected, latent_corrected, shifts }
}

/// Cells of a case of its kind, with their groups.
fn cells(case: &Case) -> (Tensor, &Value) {
    match case.find("out.combined_x") {
        Some(combined) => (combined, &case.json["reference_map_of_cell"]),
        None => (case.tensor("in.x"), &case.json["batch_of_cell"]),
    }
}

#[test]
fn cells_lose_their_batch() {
    case::run("scgen", is_removal, |case, report| {
        let module = setup::module(case, Trainable::Nothing);
        let (x, groups) = cells(case);
        let mode = if case.json["network_mode"] == "train" { Mode::Training } else { Mode::Evaluation };
        let draws = ["encode", "reencode"]
            .map(|of| case.find(&format!("out.noise.{of}")).unwrap_or_else(|| case.tensor(&format!("noise.{of}"))));
        let (labels, groups) = (setup::column(&case.json["cell_type_of_cell"]), setup::column(groups));
        let removed = remove(&module, &x, (&labels, &groups), &Anchor::Largest, (mode, draws));
        let forward = case.tolerance("forward");
        report.close(case, "out.latent_all", &removed.latent, forward);
        report.close(case, "out.latent_shifted", &removed.shifted, forward);
        report.close(case, "out.corrected_X", &removed.corrected, forward);
        report.close(case, "out.latent_corrected", &removed.latent_corrected, forward);
        check_shifts(case, &removed, report);
        if mode == Mode::Training {
            let ours = upstream(&module);
            let after = case.group("after.");
            for (name, _) in after.iter() {
                report.close(case, &format!("after.{name}"), &ours[name], forward);
            }
            report.holds("running statistics moved", !after.is_empty());
        }
    });
}

fn check_shifts(case: &Case, removed: &Removed, report: &mut Report) {
    let expected = case.group("out.delta.");
    report.holds("upstream moves as many groups", expected.len() == removed.shifts.len());
    for shift in &removed.shifts {
        let name = format!("out.delta.{}.{}", shift.label, shift.group);
        let delta = Tensor::from_slice(shift.delta.as_slice().unwrap());
        report.close(case, &name, &delta, case.tolerance("forward"));
    }
    for told in case.json["per_cell_type"].as_array().unwrap() {
        let label = told["cell_type"].as_str().unwrap();
        for shift in removed.shifts.iter().filter(|shift| shift.label == label) {
            let n_cells = told["counts"][&shift.group].as_u64();
            report.holds(
                &format!("{}: cells of {label} in {}", case.name, shift.group),
                n_cells == Some(shift.n_cells as u64),
            );
            if told["anchor"] == shift.group.as_str() {
                report.holds(
                    &format!("{}: the anchor of {label} stands", case.name),
                    shift.delta.iter().all(|d| *d == 0.0),
                );
            }
        }
    }
}

/// One site's cells without any of the reference's: by the numbers and means that these add up to.
#[test]
fn sites_that_map_without_the_reference_s_cells() {
    case::run(
        "scgen",
        |name| name == "federated_reference_is_anchor",
        |case, report| {
            let _guard = tch::no_grad_guard();
            let module = setup::module(case, Trainable::Nothing);
            let encode = |x: &Tensor, rows: (i64, i64)| {
                let mut noise = Draws::of(vec![case.tensor("noise.encode").narrow(0, rows.0, rows.1)]);
                module.draw(x, &mut Pass { mode: Mode::Evaluation, noise: &mut noise })
            };
            let types = texts(&case.json["reference_cell_type"]);
            let n_reference = types.len() as i64;
            let of_reference = setup::rows(&encode(&case.tensor("in.reference_corrected_x"), (0, n_reference)));
            let lent = label_means::contribution(of_reference.view(), types.into_iter().enumerate()).unwrap().value;
            let key: ConditionKey = "anna/core+label-means/reference".parse().unwrap();
            let lent = label_means::means([(&key, &lent)].into_iter()).unwrap();
            let mut start = n_reference;
            for site in ["site1", "site2"] {
                let labels = setup::column(&case.json[&format!("{site}_cell_type")]);
                let groups = setup::column(&case.json[&format!("{site}_batch")]);
                let n_cells = labels.n_cells() as i64;
                let mut latent = setup::rows(&encode(&case.tensor(&format!("in.{site}_x")), (start, n_cells)));
                start += n_cells;
                let shifts = shifts_onto(&lent, &means(latent.view(), &labels, &groups));
                shift(&mut latent, &labels, &groups, &shifts);
                let mut noise = Draws::of(vec![]);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                let ours = module.decode(&setup::tensor(&latent), &mut pass);
                let expected = case.tensor(&format!("{site}.corrected_X")).narrow(0, n_reference, n_cells);
                report.tensors(&format!("{}: {site} alone", case.name), &ours, &expected, case.tolerance("forward"));
            }
        },
    );
}

/// One site's cells, or both sites', after the reference's.
#[test]
fn sites_that_map_apart() {
    case::run("scgen", is_federated, |case, report| {
        let module = setup::module(case, Trainable::Nothing);
        let n_reference = texts(&case.json["reference_cell_type"]).len() as i64;
        let n_sites = ["site1", "site2"].map(|site| texts(&case.json[&format!("{site}_cell_type")]).len() as i64);
        let site_rows = [(n_reference, n_sites[0]), (n_reference + n_sites[0], n_sites[1])];
        let reference_is_anchor = case.name.ends_with("reference_is_anchor");
        let joint =
            map(case, &module, &["site1", "site2"], &[(0, n_reference), site_rows[0], site_rows[1]], &Anchor::Largest);
        report.close(case, "joint.corrected_X", &joint, case.tolerance("forward"));
        for (site, rows) in ["site1", "site2"].into_iter().zip(site_rows) {
            let apart = map(case, &module, &[site], &[(0, n_reference), rows], &Anchor::Largest);
            report.close(case, &format!("{site}.corrected_X"), &apart, case.tolerance("forward"));
            // Our way: the reference stands still, whoever outnumbers it.
            let standing = Anchor::Named(REFERENCE.to_owned());
            let ours = map(case, &module, &[site], &[(0, n_reference), rows], &standing);
            let ours_joint =
                map(case, &module, &["site1", "site2"], &[(0, n_reference), site_rows[0], site_rows[1]], &standing);
            let own = |all: &Tensor, (start, n): (i64, i64)| all.narrow(0, start, n);
            let same = own(&ours, (n_reference, rows.1)) == own(&ours_joint, rows);
            report.holds(&format!("{}: {site} maps apart as it maps together, bit for bit", case.name), same);
            if reference_is_anchor {
                report.holds(&format!("{}: {site}: the largest is the reference", case.name), ours == apart);
            }
        }
    });
}

const REFERENCE: &str = "reference";

fn map(case: &Case, module: &ScgenModule, sites: &[&str], rows: &[(i64, i64)], anchor: &Anchor) -> Tensor {
    let mut x = vec![case.tensor("in.reference_corrected_x")];
    x.extend(sites.iter().map(|site| case.tensor(&format!("in.{site}_x"))));
    let mut labels = texts(&case.json["reference_cell_type"]);
    let mut groups = vec![REFERENCE; labels.len()];
    for site in sites {
        labels.extend(texts(&case.json[&format!("{site}_cell_type")]));
        groups.extend(texts(&case.json[&format!("{site}_batch")]));
    }
    let draw = |name: &str| {
        let all = case.tensor(name);
        let parts: Vec<Tensor> = rows.iter().map(|&(start, n)| all.narrow(0, start, n)).collect();
        Tensor::cat(&parts, 0)
    };
    let draws = [draw("noise.encode"), draw("noise.reencode")];
    let columns = (&Categorical::from_values(&labels), &Categorical::from_values(&groups));
    remove(module, &Tensor::cat(&x, 0), columns, anchor, (Mode::Evaluation, draws)).corrected
}

fn texts(values: &Value) -> Vec<&str> {
    values.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
}

/// Cells of one type as they would be after the perturbation, from the draws of cells that the case recorded.
#[test]
fn a_perturbation_is_predicted() {
    case::run(
        "scgen",
        |name| name == "predict",
        |case, report| {
            let _guard = tch::no_grad_guard();
            let module = setup::module(case, Trainable::Nothing);
            let x = case.tensor("in.x");
            let (batches, labels) = (texts(&case.json["batch_of_cell"]), texts(&case.json["cell_type_of_cell"]));
            let n_types = case.tensors.iter().filter(|(name, _)| name.starts_with("choice.")).count() / 2 - 1;
            let side = |place: usize, condition: &str, noise: &str| {
                let own: Vec<i64> =
                    (0..).zip(&batches).filter(|(_, b)| **b == condition).map(|(cell, _)| cell).collect();
                let mut types: Vec<&str> = own.iter().map(|&cell| labels[cell as usize]).collect();
                types.sort_unstable();
                types.dedup();
                let balanced: Vec<Tensor> = (0..)
                    .zip(&types)
                    .map(|(i, label)| {
                        let of_type: Vec<i64> =
                            own.iter().copied().filter(|&cell| labels[cell as usize] == *label).collect();
                        let chosen = case.tensor(&format!("choice.{}", place * n_types + i));
                        Tensor::from_slice(&of_type).index_select(0, &chosen)
                    })
                    .collect();
                let chosen = case.tensor(&format!("choice.{}", 2 * n_types + place));
                let cells = Tensor::cat(&balanced, 0).index_select(0, &chosen);
                let mut noise = Draws::of(vec![case.tensor(noise)]);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                setup::rows(&module.draw(&x.index_select(0, &cells), &mut pass))
            };
            let conditions = &case.json["conditions"];
            let named = |name: &str| conditions[name].as_str().unwrap();
            let control = side(0, named("ctrl"), "noise.ctrl");
            let stimulated = side(1, named("stim"), "noise.stim");
            let delta = difference(control.view(), stimulated.view()).unwrap();
            let delta = Tensor::from_slice(delta.as_slice().unwrap());
            report.close(case, "out.delta", &delta, case.tolerance("forward"));
            let target = case.json["celltype_to_predict"].as_str().unwrap();
            let cells: Vec<i64> = (0..)
                .zip(batches.iter().zip(&labels))
                .filter(|(_, (batch, label))| **batch == named("ctrl") && **label == target)
                .map(|(cell, _)| cell)
                .collect();
            let mut noise = Draws::of(vec![case.tensor("noise.cells")]);
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let latent = module.draw(&x.index_select(0, &Tensor::from_slice(&cells)), &mut pass) + delta;
            report.close(case, "out.predicted", &module.decode(&latent, &mut pass), case.tolerance("forward"));
        },
    );
}

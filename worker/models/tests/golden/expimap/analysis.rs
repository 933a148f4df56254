//! `analysis_*`: what terms say: active ones, their genes, directions, latent means, enrichment.

use archipelago_models::{
    data::Minibatch,
    model::Embedder as _,
    nn::{Mode, Pass, SeededNoise, Trainable},
    zoo::expimap::{Direction, ExpimapConfig, ExpimapModule, Origin, Sides, enriched},
};
use ndarray::{Array2, Axis};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::setup;
use crate::case::{self, Case, Report};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("analysis_")
}

fn check(test: impl Fn(&Case, &ExpimapModule, &mut Report)) {
    case::run("expimap", is_one, |case, report| test(case, &module(case), report));
}

fn mask_of(rows: &Value) -> Option<Tensor> {
    let rows = rows.as_array().filter(|rows| !rows.is_empty())?;
    let row =
        |row: &Value| -> Vec<f32> { row.as_array().unwrap().iter().map(|is| is.as_f64().unwrap() as f32).collect() };
    Some(Tensor::from_slice2(&rows.iter().map(row).collect::<Vec<_>>()))
}

fn module(case: &Case) -> ExpimapModule {
    let mask = mask_of(&case.json["mask"]).unwrap();
    let config = ExpimapConfig { soft_ext_mask: true, dr_rate: 0.0, ..setup::config(case) };
    let model = setup::model_of(config, &mask, mask_of(&case.json["ext_mask"]).as_ref());
    model.module(&case.group("param."), Trainable::Nothing, None)
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn terms_and_their_genes() {
    check(|case, module, report| {
        let names: Vec<&str> = module.terms().iter().map(|term| term.name.as_str()).collect();
        report.holds(&format!("{}: names", case.name), names == texts(&case.json["update_terms"]));
        let active = json!(module.active_terms()) == case.json["nonzero_terms"];
        report.holds(&format!("{}: active terms", case.name), active);
        let genes = texts(&case.json["var_names"]);
        let mask = module.term_masks();
        for (at, term) in module.terms().iter().enumerate() {
            let column = Vec::<f32>::try_from(mask.select(1, at as i64).contiguous()).unwrap();
            let in_set: Vec<&str> =
                genes.iter().zip(&column).filter(|(_, is)| **is > 0.0).map(|(gene, _)| *gene).collect();
            if term.origin != Origin::Unconstrained {
                let theirs = texts(&case.json["mask_genes"][&term.name]);
                report.holds(&format!("{}: set of {}", case.name, term.name), in_set == theirs);
            }
            let Some(expected) = case.json["term_genes"].get(&term.name) else { continue };
            let ours = module.term_genes(at);
            let own: Vec<&str> = ours.iter().map(|gene| genes[gene.gene]).collect();
            report.holds(&format!("{}: genes of {}", case.name, term.name), own == texts(&expected["genes"]));
            let is_in_set: Vec<bool> = ours.iter().map(|gene| gene.is_in_set).collect();
            report.holds(&format!("{}: {} in set", case.name, term.name), json!(is_in_set) == expected["in_mask"]);
            let weights: Vec<f64> =
                expected["weights"].as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).collect();
            let is_close = ours.iter().zip(&weights).all(|(gene, w)| (f64::from(gene.weight) - w).abs() < 1e-7);
            report.holds(&format!("{}: weights of {}", case.name, term.name), is_close);
        }
    });
}

#[test]
fn directions() {
    check(|case, module, report| {
        let forward = case.tolerance("forward");
        let tensor = |values: Vec<f32>| Tensor::from_slice(&values);
        report.close(case, "directions.sum", &tensor(module.directions(Direction::Sum)), forward);
        report.close(case, "directions.counts", &tensor(module.directions(Direction::Counts)), forward);
        report.close(case, "directions.counts.confidence", &tensor(module.confidence()), forward);
    });
}

#[test]
fn latent_means() {
    check(|case, module, report| {
        let (mean, var) = latent(case, module);
        report.close(case, "latent.mean", &mean, case.tolerance("forward"));
        report.close(case, "latent.var", &var, case.tolerance("forward"));
    });
}

fn latent(case: &Case, module: &ExpimapModule) -> (Tensor, Tensor) {
    let mut noise = SeededNoise::new([0; 32]);
    let minibatch: Minibatch = setup::minibatch(case);
    let qz = module.posterior(&minibatch, &mut Pass { mode: Mode::Evaluation, noise: &mut noise });
    (qz.mean, qz.var)
}

fn array(tensor: &Tensor) -> Array2<f32> {
    let (rows, columns) = tensor.size2().unwrap();
    let flat = Vec::<f32>::try_from(tensor.to_kind(Kind::Float).contiguous().view([-1])).unwrap();
    Array2::from_shape_vec((rows as usize, columns as usize), flat).unwrap()
}

#[test]
fn enrichment() {
    check(|case, module, report| {
        let (mean, var) = latent(case, module);
        let (means, vars) = (array(&mean), array(&var));
        let groups = texts(&case.json["cell_groups"]);
        for (run, given) in case.json["enrich"].as_object().unwrap() {
            let is_directed = given["options"]["use_directions"] == true;
            let directions = is_directed.then(|| module.directions(Direction::Sum));
            for group in texts(&given["categories"]) {
                let name = |what: &str| format!("enrich.{run}.{group}.{what}");
                // Places within the group, and within the cells that it is compared with.
                let comparison = given["options"].get("comparison").and_then(Value::as_str);
                let own: Vec<usize> = (0..groups.len()).filter(|&cell| groups[cell] == group).collect();
                let is_rest = |cell: &usize| match comparison {
                    Some(other) => groups[*cell] == other,
                    None => groups[*cell] != group,
                };
                let rest: Vec<usize> = (0..groups.len()).filter(is_rest).collect();
                let drawn = |cells: &[usize], side: &str| -> Vec<usize> {
                    let places = Vec::<i64>::try_from(case.tensor(&name(side)).to_kind(Kind::Int64)).unwrap();
                    places.iter().map(|&place| cells[place as usize]).collect()
                };
                let (own, rest) = (drawn(&own, "choice_group"), drawn(&rest, "choice_rest"));
                let of = |all: &Array2<f32>, cells: &[usize]| all.select(Axis(0), cells);
                let (group_vars, rest_vars) = (of(&vars, &own), of(&vars, &rest));
                let (mut a, mut b) = (of(&means, &own), of(&means, &rest));
                let is_exact = given["options"]["exact"] != false;
                if !is_exact {
                    a += &(array(&case.tensor(&name("noise_group"))) * group_vars.sqrt());
                    b += &(array(&case.tensor(&name("noise_rest"))) * rest_vars.sqrt());
                }
                let vars = is_exact.then(|| (group_vars.view(), rest_vars.view()));
                let ours = enriched(Sides { group: a.view(), rest: b.view(), vars }, directions.as_deref());
                for (what, values) in [("p_h0", &ours.p_h0), ("p_h1", &ours.p_h1), ("bf", &ours.bf)] {
                    report.close(case, &name(what), &Tensor::from_slice(values), case.tolerance("forward"));
                }
            }
        }
    });
}

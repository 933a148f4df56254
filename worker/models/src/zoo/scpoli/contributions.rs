//! What a condition's cells contribute to the prototypes that sites share: number, sum and products of each type.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    Name,
    part::{Contribution, Member},
    pool::Pool,
};

use super::{ScpoliModule, prototypes::Statistics};
use crate::{
    data::Dataset,
    error::Result,
    model::{Embedder as _, Module as _},
    nn::{Mode, Pass, SeededNoise},
    reference::to_array,
    train::{EVALUATION_MINIBATCH, Seeds},
};

/// The part of prototypes.
pub(super) fn part() -> Name {
    PART.parse().expect("it is a name")
}

/// The sums over the latent means of cells that have a type, known to the reference or not. Means and not draws: the same cells say
/// the same.
///
/// # Errors  [`Error::Common`](crate::Error::Common) for a latent state that is not a number
pub(super) fn of_cells(module: &ScpoliModule, dataset: &Dataset<'_>, cells: &[usize]) -> Result<Vec<Contribution>> {
    let names_of = |cell: usize| -> BTreeSet<&str> {
        let levels = module.levels();
        let known = levels.of_cell(dataset, cell).map(|of_type| levels.types()[of_type].as_str());
        known.chain(levels.new_of_cell(dataset, cell)).collect()
    };
    let labelled: Vec<usize> = cells.iter().copied().filter(|&cell| !names_of(cell).is_empty()).collect();
    if labelled.is_empty() {
        return Ok(Vec::new());
    }
    let _guard = tch::no_grad_guard();
    let mut noise = SeededNoise::new(Seeds::new(0, "prototypes").of("noise", 0));
    let mut pool = Pool::new(Statistics::tables(module.config().latent_dim));
    let mut behind = BTreeMap::<String, Vec<usize>>::new();
    for chunk in labelled.chunks(EVALUATION_MINIBATCH) {
        let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
        let minibatch = dataset.minibatch(chunk, module.weights().device());
        let latent = to_array(&module.posterior(&minibatch, &mut pass).mean);
        for (z, &cell) in latent.rows().into_iter().zip(chunk) {
            for name in names_of(cell) {
                Statistics::add_to_pool(&mut pool, name, z)?;
                behind.entry(name.to_owned()).or_default().push(cell);
            }
        }
    }
    Ok(vec![Contribution { part: part(), value: Member::Sums(pool), cells: behind }])
}

const PART: &str = "prototypes";

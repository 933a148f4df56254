//! Shot surgery: each batch takes over what that batch of the reference owns that it is most like, and keeps it unless epochs are asked
//! for.

use std::collections::BTreeMap;

use archipelago_common::{Columns, ConditionKey};
use archipelago_models::surgery::{Likeness, Start, likeness};

use super::{Mapped, Mapping, exact};
use crate::{
    error::{Error, Result},
    output::Output,
};

pub(super) fn map(mapping: &Mapping<'_>, output: &Output) -> Result<Mapped> {
    let (args, reference) = (mapping.args, &mapping.parent.reference);
    let trains = args.plan.trains();
    if !trains && !mapping.extension.is_empty() {
        let expected = "nothing without `--epochs` or `--max-steps`: what is added would stay as it is drawn";
        return Err(Error::Setting { what: "what the query adds", found: "given".to_owned(), expected });
    }
    let mut found: BTreeMap<ConditionKey, Likeness> = BTreeMap::new();
    for group in &mapping.groups {
        let looked_at = group.sample(args.subsample.unwrap_or(1.0), args.plan.seed);
        let of_group = likeness(reference, &looked_at.cells()?, args.plan.seed, args.compute)?;
        found.extend(group.conditions.keys().iter().map(|key| (key.clone(), of_group.clone())));
    }
    let taken_over =
        |(key, found): (&ConditionKey, &Likeness)| (key.clone(), reference.columns[&found.nearest].clone());
    let columns: BTreeMap<ConditionKey, Columns> = found.iter().map(taken_over).collect();
    let start = if trains { Start::At(&columns) } else { Start::Untrained(&columns) };
    Ok(Mapped { likeness: found, ..exact::map(mapping, start, output)? })
}

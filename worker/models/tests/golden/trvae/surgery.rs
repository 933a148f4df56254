//! `surgery_*`: upstream's surgery to the letter: the flags, and what they are here.

use archipelago_models::zoo::family::Freeze;

use super::setup;
use crate::case::{self, Case};

/// The flags that a case was made with.
pub(super) fn flags(case: &Case) -> Freeze {
    let flag = |name: &str, default| case.json["load_query_data"][name].as_bool().unwrap_or(default);
    let default = Freeze::default();
    Freeze {
        freeze: flag("freeze", default.freeze),
        freeze_expression: flag("freeze_expression", default.freeze_expression),
        remove_dropout: flag("remove_dropout", default.remove_dropout),
        ..default
    }
}

/// Here new columns are values beside the old ones: nothing grows.
#[test]
fn the_base_stays_and_columns_are_added() {
    let is_one = |name: &str| name.starts_with("surgery_");
    case::run("trvae", is_one, |case, report| {
        let config = setup::config(case);
        let (old_base, old) = setup::split(&config, &case.group("ref."));
        let (base, all) = setup::split(&config, &case.group("param."));
        report.holds(&format!("{}: base", case.name), old_base == base);
        report.holds(&format!("{}: columns", case.name), all.starts_with(&old) && all.len() > old.len());
    });
}

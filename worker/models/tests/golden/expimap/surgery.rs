//! `surgery_*`: upstream's surgery to the letter: the flags, and what they are here.

use archipelago_models::zoo::{expimap::FreezeTerms, family::Freeze};

use crate::case::Case;

/// The flags that a case was made with.
pub(super) fn flags(case: &Case) -> FreezeTerms {
    let flag = |name: &str, default| case.json["load_query_data"][name].as_bool().unwrap_or(default);
    let default = FreezeTerms::default();
    FreezeTerms {
        common: Freeze {
            freeze: flag("freeze", default.common.freeze),
            freeze_expression: flag("freeze_expression", default.common.freeze_expression),
            remove_dropout: flag("remove_dropout", default.common.remove_dropout),
            ..default.common
        },
        unfreeze_ext: flag("unfreeze_ext", default.unfreeze_ext),
    }
}

//! scVI against scvi-tools 1.4.2.

pub(crate) mod core;
pub(crate) mod kernels;
mod separability;
pub(crate) mod setup;
pub(crate) mod surgery;
mod tables;

use crate::case;

/// Every case is run by one of the tests here, or named with the reason.
#[test]
fn every_case_belongs_to_a_test() {
    for case in case::cases("scvi") {
        let is_run =
            core::is_one(&case.name) || surgery::is_one(&case.name) || tables::NAMES.contains(&case.name.as_str());
        if !is_run && case.name != separability::NAME {
            case::say(&format!("scvi/{}: skipped, no test knows this kind of case", case.name));
        }
    }
}

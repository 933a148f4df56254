//! expiMap against scArches 0.6.1.

mod analysis;
mod core;
mod federated;
mod files;
mod setup;
mod surgery;
mod units;

use crate::case;

/// Every case is run by one of the tests here; `add_annotations` is one of preprocessing.
#[test]
fn every_case_belongs_to_a_test() {
    for case in case::cases("expimap") {
        let tests = [core::is_one, surgery::is_one, analysis::is_one, federated::is_one, units::is_one];
        let is_run = tests.iter().any(|is_one| is_one(&case.name)) || case.name == "add_annotations";
        assert!(is_run, "expimap/{}: no test knows this kind of case", case.name);
    }
}

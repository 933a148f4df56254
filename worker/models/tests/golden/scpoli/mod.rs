//! scPoli against scArches 0.6.1.

mod classify;
mod core;
mod federated;
mod files;
mod setup;
mod surgery;

use crate::case;

/// Every case is run by one of the tests here.
#[test]
fn every_case_belongs_to_a_test() {
    for case in case::cases("scpoli") {
        let tests = [core::is_one, surgery::is_one, surgery::is_shot, federated::is_one, classify::is_one];
        let is_run = tests.iter().any(|is_one| is_one(&case.name));
        assert!(is_run, "scpoli/{}: no test knows this kind of case", case.name);
    }
}

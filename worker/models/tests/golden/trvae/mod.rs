//! trVAE against scArches 0.6.1.

mod core;
mod federated;
mod files;
mod setup;
mod stopping;
mod surgery;

use crate::case;

/// Every case is run by one of the tests here.
#[test]
fn every_case_belongs_to_a_test() {
    for case in case::cases("trvae") {
        let tests = [core::is_one, surgery::is_one, federated::is_one, files::is_one];
        let is_run = tests.iter().any(|is_one| is_one(&case.name));
        assert!(is_run, "trvae/{}: no test knows this kind of case", case.name);
    }
}

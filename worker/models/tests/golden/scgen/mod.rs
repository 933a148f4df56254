//! scGen against scArches 0.6.1.

mod arithmetic;
mod core;
mod setup;

use crate::case;

/// Every case is run by one of the tests here.
#[test]
fn every_case_belongs_to_a_test() {
    for case in case::cases("scgen") {
        let is_run = core::is_one(&case.name) || arithmetic::is_one(&case.name);
        assert!(is_run, "scgen/{}: no test knows this kind of case", case.name);
    }
}

//! scANVI against scvi-tools 1.4.2.

mod core;
mod kernels;
mod pretrained;
mod setup;
mod surgery;

use crate::case;

/// Every case is run by one of the tests here, or named with the reason.
#[test]
fn every_case_belongs_to_a_test() {
    for case in case::cases("scanvi") {
        if !core::is_one(&case.name) && !surgery::is_one(&case.name) {
            case::say(&format!("scanvi/{}: skipped, no test knows this kind of case", case.name));
        }
    }
}

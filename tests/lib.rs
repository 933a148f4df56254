//! Tests of the whole system: the house rules (`tidy.rs`) and the main job as real processes (`end_to_end/`).
//! Golden fixtures that more than one crate reads are under `golden/`.

//! Telling how far long work has come.

/// Called with the share of the work that is done, 0 to 1, from any thread, now and then.
pub type Progress<'a> = &'a (dyn Fn(f64) + Sync);

/// Nobody listens.
pub fn silent(_: f64) {}

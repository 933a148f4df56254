//! Nothing: this crate only names features, see its `Cargo.toml`.

//! What one reading of a file may bring into memory, all its objects together.
//!
//! Every dataset by itself is bounded by what is stored of it. A hostile file multiplies: a thousand links to one dataset, a
//! thousand columns whose texts are one and the same text. So a reading has a ledger, on the thread that reads, and each
//! dataset that is read whole is entered before memory is taken for it.

use std::cell::Cell;

use hdf5::{Container, File};

use super::{failed, malformed};
use crate::Result;

thread_local! {
    static OPEN: Cell<Option<Ledger>> = const { Cell::new(None) };
}

/// What is left of both sums, in bytes.
#[derive(Clone, Copy)]
struct Ledger {
    values: u64,
    texts: u64,
}

/// A reading of one file. Within another, it is part of that.
pub(crate) struct Reading {
    is_outermost: bool,
}

impl Reading {
    /// Begins one.
    pub(crate) fn begin(file: &File) -> Self {
        let is_outermost = OPEN.get().is_none();
        if is_outermost {
            OPEN.set(Some(Ledger::of(file.size())));
        }
        Self { is_outermost }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.is_outermost {
            OPEN.set(None);
        }
    }
}

impl Ledger {
    fn of(file_bytes: u64) -> Self {
        let values = VALUES.saturating_add(file_bytes.saturating_mul(VALUES_PER_BYTE));
        // A text is written once, wherever it belongs. Half as much again as a file has may stand twice in it.
        let texts = TEXTS.saturating_add(file_bytes.saturating_mul(2));
        Self { values, texts }
    }

    /// That of the reading under way; of an object read by itself, one of its own.
    fn current(object: &Container) -> Result<Self> {
        match OPEN.get() {
            Some(ledger) => Ok(ledger),
            None => Ok(Self::of(object.file().map_err(|source| failed("open", object, source))?.size())),
        }
    }

    fn keep(self) {
        if OPEN.get().is_some() {
            OPEN.set(Some(self));
        }
    }
}

/// Enters values that are about to be read.
///
/// # Errors  [`crate::Error::Malformed`] where all objects together would take more than the file can account for
pub(crate) fn enter_values(object: &Container, bytes: u64) -> Result<()> {
    let mut ledger = Ledger::current(object)?;
    let Some(left) = ledger.values.checked_sub(bytes) else {
        let detail = format!("would take {bytes} bytes, and with what was read before more than the file can hold");
        return Err(malformed(object, detail));
    };
    ledger.values = left;
    ledger.keep();
    Ok(())
}

/// Bytes of text that may still be read.
pub(crate) fn texts_left(object: &Container) -> Result<u64> {
    Ok(Ledger::current(object)?.texts)
}

/// Enters texts that were read.
pub(crate) fn enter_texts(object: &Container, bytes: u64) -> Result<()> {
    let mut ledger = Ledger::current(object)?;
    ledger.texts = ledger.texts.saturating_sub(bytes);
    ledger.keep();
    Ok(())
}

/// Bytes that values may take whatever the size of their file.
const VALUES: u64 = 512 << 20;
/// Bytes of values for one of the file: a dense matrix of zeros and a few counts is compressed to a fortieth.
const VALUES_PER_BYTE: u64 = 64;
/// Bytes that texts may take whatever the size of their file.
const TEXTS: u64 = 16 << 20;

//! Mutations of good input, for whatever reads bytes that others wrote.
//!
//! A crate that reads such bytes has a target: a test that names a corpus (files under version control: golden bytes, saved
//! models, examples) and a function that reads. [`Fuzz::run`] gives it a fixed number of inputs, each the same on every machine: the
//! corpus itself, then mutations of it under the seeds 0, 1, 2… ([`mutate`]). A panic fails the test, and so does memory
//! beyond a bound that grows with the input; an input that did either belongs into the corpus.
//!
//! Every run of `make test` tries some hundred inputs of each target. `ARCHIPELAGO_FUZZ=1000000` tries as many, and
//! `ARCHIPELAGO_FUZZ_FROM=n` begins at another seed. A process that was ended (a stack that overflowed, memory that was
//! refused) tells no seed; with `ARCHIPELAGO_FUZZ_TRACE=file` the seed under way stands in that file.
//!
//! Why our own: engines that are guided by coverage want a nightly compiler, and without it they give random bytes, which
//! end at the first length or magic number. What finds faults in formats without coverage is a good corpus.

pub mod mutate;

pub use allocation_counter::measure as allocated;

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

/// A target: who reads, what good input looks like, and how much memory reading may take.
#[derive(Clone, Debug)]
pub struct Fuzz {
    name: &'static str,
    corpus: Vec<Vec<u8>>,
    /// Bytes that reading takes whatever the input, and for each byte of it.
    memory: (u64, u64),
    most_bytes: usize,
}

/// An input that the reader did not survive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What gives it again; none for an entry of the corpus.
    pub seed: Option<u64>,
    /// What happened.
    pub what: String,
    /// The input.
    pub input: Vec<u8>,
}

impl Fuzz {
    /// A target without any input yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, corpus: Vec::new(), memory: (BASE_BYTES, BYTES_PER_BYTE), most_bytes: MOST_BYTES }
    }

    /// With an entry in its corpus.
    #[must_use]
    pub fn with(mut self, entry: impl Into<Vec<u8>>) -> Self {
        self.corpus.push(entry.into());
        self
    }

    /// With all files in a folder and below whose names end so, in the order of their paths.
    ///
    /// # Panics
    /// If there is none: a corpus that was moved away would make the target test nothing.
    #[must_use]
    pub fn with_files(mut self, folder: impl AsRef<Path>, ending: &str) -> Self {
        let folder = folder.as_ref();
        let (mut pending, mut paths) = (vec![folder.to_owned()], Vec::new());
        while let Some(path) = pending.pop() {
            match std::fs::read_dir(&path) {
                Ok(entries) => pending.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
                Err(_) if path.to_string_lossy().ends_with(ending) => paths.push(path),
                Err(_) => {}
            }
        }
        paths.sort();
        assert!(!paths.is_empty(), "no file `*{ending}` in `{}`", folder.display());
        self.corpus.extend(paths.iter().map(|path| std::fs::read(path).expect("a file that was listed")));
        self
    }

    /// With another bound on memory: so much, and so much for each byte of the input.
    #[must_use]
    pub fn within(mut self, base: u64, per_byte: u64) -> Self {
        self.memory = (base, per_byte);
        self
    }

    /// Tries `n` inputs, or as many as the environment asks for.
    ///
    /// # Panics
    /// When an input is found that ends the reader or takes more memory than it may.
    pub fn run(&self, n: u64, read: impl Fn(&[u8])) {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let first = number("ARCHIPELAGO_FUZZ_FROM").unwrap_or(0);
        let n = number("ARCHIPELAGO_FUZZ").unwrap_or(n);
        if let Some(found) = self.search(first..first.saturating_add(n), read) {
            panic!("{}", self.tell(&found));
        }
    }

    /// The first input that the reader does not survive, of the corpus and of these seeds.
    pub fn search(&self, seeds: std::ops::Range<u64>, read: impl Fn(&[u8])) -> Option<Found> {
        assert!(!self.corpus.is_empty(), "target `{}` has no corpus", self.name);
        let trace = std::env::var_os("ARCHIPELAGO_FUZZ_TRACE");
        let of_corpus = self.corpus.iter().find_map(|entry| self.judge(None, entry, &read));
        of_corpus.or_else(|| {
            seeds.into_iter().find_map(|seed| {
                if let Some(file) = &trace {
                    std::fs::write(file, format!("{} {seed}\n", self.name)).expect("the trace can be written");
                }
                self.judge(Some(seed), &self.input(seed), &read)
            })
        })
    }

    /// The input under a seed.
    pub fn input(&self, seed: u64) -> Vec<u8> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut pick = || &self.corpus[(rng.next_u64() % self.corpus.len() as u64) as usize];
        let (entry, other) = (pick().clone(), pick());
        let mut input = mutate::mutated(entry, other, &mut rng);
        input.truncate(self.most_bytes);
        input
    }

    fn judge(&self, seed: Option<u64>, input: &[u8], read: &impl Fn(&[u8])) -> Option<Found> {
        let mut outcome = Ok(());
        let used = allocation_counter::measure(|| outcome = catch_unwind(AssertUnwindSafe(|| read(input))));
        let most = self.memory.0 + self.memory.1 * input.len() as u64;
        let what = match outcome {
            Err(panic) => format!("the reader panicked: {}", text_of(panic.as_ref())),
            Ok(()) if used.bytes_max > most => format!("it took {} bytes, and may take {most}", used.bytes_max),
            Ok(()) => return None,
        };
        Some(Found { seed, what, input: input.to_vec() })
    }

    fn tell(&self, Found { seed, what, input }: &Found) -> String {
        let mut told = format!("target `{}`, ", self.name);
        // Writing to a text does not fail.
        let _ = match seed {
            Some(seed) => write!(told, "seed {seed}: {what}\nagain: ARCHIPELAGO_FUZZ_FROM={seed} ARCHIPELAGO_FUZZ=1\n"),
            None => writeln!(told, "an entry of the corpus: {what}"),
        };
        let shown = &input[..input.len().min(SHOWN)];
        let _ = write!(told, "{} bytes: {}", input.len(), shown.escape_ascii());
        told
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no word")
}

/// Bytes that reading may take whatever its input: serde reserves up to a mebibyte for a list of unknown length.
const BASE_BYTES: u64 = 8 << 20;
/// For each byte of its input: a byte of a list of numbers becomes a value of some dozens.
const BYTES_PER_BYTE: u64 = 256;
/// Longest input.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of an input that are shown.
const SHOWN: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Fuzz {
        Fuzz::new("test").with(*b"length 004 then four")
    }

    #[test]
    fn the_same_seed_gives_the_same_input_and_most_differ() {
        let inputs: std::collections::BTreeSet<_> = (0..200).map(|seed| target().input(seed)).collect();
        assert!(inputs.len() > 150, "{} of 200 differ", inputs.len());
        assert!((0..200).all(|seed| target().input(seed) == target().input(seed)));
    }

    #[test]
    fn a_panic_is_found_with_its_seed() {
        let read = |input: &[u8]| assert!(input.starts_with(b"length"), "not what it should be");
        let found = target().search(0..500, read).unwrap();
        assert!(found.what.contains("not what it should be"), "{}", found.what);
        assert_eq!(target().input(found.seed.unwrap()), found.input);
        assert!(target().tell(&found).contains("ARCHIPELAGO_FUZZ_FROM="));
    }

    #[test]
    fn a_length_that_is_believed_is_found() {
        // Reserves what the input says, which the entry itself keeps small.
        let read = |input: &[u8]| {
            let text = String::from_utf8_lossy(input);
            let length = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
            let _ = Vec::<u8>::new().try_reserve_exact(length).is_ok();
            let mut buffer: Vec<u8> = Vec::new();
            drop((buffer.try_reserve_exact(length), buffer));
        };
        let found = target().search(0..20_000, read).unwrap();
        assert!(found.what.contains("bytes, and may take"), "{}", found.what);
    }

    #[test]
    fn a_reader_that_survives_is_let_be_and_the_corpus_comes_first() {
        assert_eq!(target().search(0..500, |_| ()), None);
        let found = target().search(0..500, |_| panic!("always")).unwrap();
        assert_eq!((found.seed, &found.input[..]), (None, &b"length 004 then four"[..]));
    }

    #[test]
    fn a_corpus_is_read_from_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        for (name, text) in [("b/2.bin", "2"), ("a.bin", "1"), ("c.txt", "3")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(Fuzz::new("files").with_files(dir.path(), ".bin").corpus, [b"1".to_vec(), b"2".to_vec()]);
    }
}

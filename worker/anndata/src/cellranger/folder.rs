//! A folder with `matrix.mtx`, `barcodes.tsv` and `features.tsv` (`genes.tsv` before version 3), each compressed or not.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::Features;
use crate::{Csr, Error, Matrix, Result};

/// Reads a folder; `None` where it holds no counts.
pub(super) fn read(folder: &Path) -> Result<Option<Features>> {
    let Some(matrix) = find(folder, "matrix.mtx") else { return Ok(None) };
    let needed = |names: &[&str]| {
        let found = names.iter().find_map(|name| find(folder, name));
        found.ok_or_else(|| Error::NotFound { path: folder.join(names[0]) })
    };
    let barcodes: Vec<String> = Text::open(&needed(&["barcodes.tsv"])?)?.lines()?;
    let path = needed(&["features.tsv", "genes.tsv"])?;
    let (mut ids, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for line in Text::open(&path)?.lines()? {
        let mut fields = line.split('\t').map(str::to_owned);
        let id = fields.next().unwrap_or_default();
        names.push(fields.next().unwrap_or_else(|| id.clone()));
        ids.push(id);
        types.extend(fields.next());
    }
    if !types.is_empty() && types.len() != names.len() {
        let detail = format!("{} of {} lines name a type of feature", types.len(), names.len());
        return Err(malformed(&path, detail));
    }
    let counts = Matrix::from(counts(&matrix, (barcodes.len(), names.len()))?);
    Ok(Some(Features { counts, barcodes, names, ids, types, genomes: Vec::new() }))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    [name.to_owned(), format!("{name}.gz")].map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
}

/// Counts of features × cells in the coordinate format of Matrix Market, as cells × features; entries of one place are added up.
fn counts(path: &Path, (n_cells, n_features): (usize, usize)) -> Result<Csr> {
    let mut text = Text::open(path)?;
    let head = text.next()?.unwrap_or_default().to_lowercase();
    let words: Vec<&str> = head.split_whitespace().collect();
    let is_read = matches!(words[..], ["%%matrixmarket", "matrix", "coordinate", "integer" | "real", "general"]);
    if !is_read {
        return Err(malformed(path, format!("it begins with `{head}`, expected a general matrix of coordinates")));
    }
    let sizes = loop {
        match text.next()? {
            Some(line) if line.starts_with('%') || line.trim().is_empty() => {}
            line => break line.unwrap_or_default().to_owned(),
        }
    };
    let announced: Vec<usize> = sizes.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [rows, columns, n_entries] = announced[..] else {
        return Err(text.wrong(&format!("`{sizes}`, expected numbers of features, cells and entries")));
    };
    if (rows, columns) != (n_features, n_cells) {
        let beside = format!("{rows} features and {columns} cells, but there are {n_features} and {n_cells} names");
        return Err(malformed(path, beside));
    }
    let mut cells: Vec<Vec<(u32, f32)>> = vec![Vec::new(); n_cells];
    let mut n_read = 0;
    while let Some(line) = text.next()? {
        let mut words = line.split_ascii_whitespace();
        let mut place = |n: usize| words.next()?.parse::<usize>().ok()?.checked_sub(1).filter(|&at| at < n);
        let entry = (place(n_features), place(n_cells), words.next().and_then(|word| word.parse::<f32>().ok()));
        let (Some(feature), Some(cell), Some(value)) = entry else {
            let found = format!("`{line}`, expected a feature of {n_features}, a cell of {n_cells} and a number");
            return Err(text.wrong(&found));
        };
        // A panel of more features than that would not fit into memory.
        cells[cell].push((feature as u32, value));
        n_read += 1;
    }
    if n_read != n_entries {
        return Err(malformed(path, format!("{n_read} entries, expected {n_entries}: it was cut, perhaps")));
    }
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::with_capacity(n_read), Vec::with_capacity(n_read));
    for mut cell in cells {
        cell.sort_by_key(|&(feature, _)| feature);
        cell.dedup_by(|later, first| {
            let is_same = later.0 == first.0;
            first.1 += if is_same { later.1 } else { 0.0 };
            is_same
        });
        indices.extend(cell.iter().map(|&(feature, _)| feature));
        data.extend(cell.iter().map(|&(_, value)| value));
        indptr.push(indices.len());
    }
    Csr::new(n_cells, n_features, indptr, indices, data)
}

/// A file of lines.
struct Text {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: String,
    n_lines: u64,
    /// Bytes that may still come: what is packed is not believed either.
    n_left: u64,
}

impl Text {
    fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let n_left = file.metadata().map_err(failed)?.len().saturating_mul(LARGEST_RATIO).saturating_add(LONGEST_LINE);
        let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
        let reader: Box<dyn BufRead> = if is_compressed {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(BufReader::new(file))
        };
        Ok(Self { path: path.to_owned(), reader, line: String::new(), n_lines: 0, n_left })
    }

    fn next(&mut self) -> Result<Option<&str>> {
        self.line.clear();
        let mut reader = std::io::Read::take(&mut self.reader, LONGEST_LINE);
        let read = reader.read_line(&mut self.line);
        let n = read.map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?;
        self.n_lines += 1;
        let Some(n_left) = self.n_left.checked_sub(n as u64) else {
            return Err(self.wrong(&format!("it unpacks to more than {LARGEST_RATIO} times its size")));
        };
        self.n_left = n_left;
        if n as u64 == LONGEST_LINE {
            return Err(self.wrong("a line without end"));
        }
        Ok((n > 0).then(|| self.line.trim_end_matches(['\n', '\r'])))
    }

    fn lines(mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while let Some(line) = self.next()? {
            lines.push(line.to_owned());
        }
        Ok(lines)
    }

    fn wrong(&self, found: &str) -> Error {
        malformed(&self.path, format!("line {}: {found}", self.n_lines))
    }
}

fn malformed(path: &Path, detail: String) -> Error {
    Error::Malformed { object: "the text".to_owned(), path: path.to_owned(), detail }
}

/// Bytes of a line beyond which nobody writes one.
const LONGEST_LINE: u64 = 1 << 16;
/// How much larger text is than its file at most; that of counts is some five times as large.
const LARGEST_RATIO: u64 = 64;

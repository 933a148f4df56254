//! A trained tree of cell types as a directory.
//!
//! ```text
//! <dir>/tree.json            the tree, how it was trained, and on what
//!       arrays.safetensors   what its nodes decide with
//!       tables.json          the counts by which data sets joined; they alone give the tree
//! ```
//!
//! Numbers of the fit are arrays: they come back bit for bit.

use std::{collections::BTreeMap, fmt, path::Path};

use archipelago_analysis::{
    hierarchy::{
        BinaryNode, Classifier, Classifiers, LearnOptions, LinearSvm, NearestNode, OneClassSvm, Reconstruction, Rules,
        SharedTree, State, Tables, TrainedTree, Tree,
    },
    pca::Pca,
};
use archipelago_common::{
    BlobRef, DType, Digest, StateDict, Tensor, fs, limits,
    reference_dir::{ReferenceDir, VERSION_FILE},
    tree,
};
use ndarray::Array2;
use serde::{Deserialize, Serialize, de};

use crate::{
    error::{Error, Result},
    network::Network,
    shared_tree::TreeParts,
};

/// Where the cells of a tree's data sets are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The embedding.
    pub use_rep: String,
    /// The obs column of data sets.
    pub batch_key: String,
    /// The obs column of labels.
    pub labels_key: String,
    /// Whether the name of its data set was appended to each label.
    pub append_batch: bool,
    /// Data sets, in the order in which they joined.
    pub data_sets: Vec<String>,
    /// What placed the cells, where the file told it.
    pub network: Option<Network>,
}

/// A trained tree with where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeDir {
    /// The tree.
    pub trained: TrainedTree,
    /// How data sets joined it.
    pub options: LearnOptions,
    /// Where its cells are.
    pub source: Source,
    /// The counts; none for a tree that was given.
    pub tables: Option<Tables>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    format: u32,
    tree: Tree,
    n_dims: usize,
    rules: Rules,
    options: LearnOptions,
    source: Source,
    arrays: BlobRef,
}

impl TreeDir {
    /// Writes the directory; `tree.json` last, so that one that has it is whole.
    ///
    /// # Errors  [`Error::Common`]
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir(dir)?;
        for replaced in [TREE, TABLES].map(|name| dir.join(name)).iter().filter(|path| path.exists()) {
            let failed = |source| Error::File { action: "remove", path: replaced.clone(), source };
            std::fs::remove_file(replaced).map_err(failed)?;
        }
        let arrays = arrays_of(&self.trained).to_safetensors(None);
        fs::write_atomic(&dir.join(ARRAYS), &arrays)?;
        if let Some(tables) = &self.tables {
            write_json(&dir.join(TABLES), tables)?;
        }
        let TrainedTree { tree, n_dims, rules, .. } = &self.trained;
        let contents = Contents {
            format: FORMAT,
            tree: tree.clone(),
            n_dims: *n_dims,
            rules: *rules,
            options: self.options,
            source: self.source.clone(),
            arrays: BlobRef::of(&arrays),
        };
        write_json(&dir.join(TREE), &contents)
    }

    /// Reads a directory and checks that its parts fit each other.
    ///
    /// # Errors  [`Error::Common`] for a file that cannot be read or is not the one that was written, [`Error::Tree`]
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(TREE);
        let bytes = fs::read_bounded(&path, JSON_BYTES)?;
        let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error))?;
        if contents.format != FORMAT {
            return Err(damaged(
                &path,
                format!("format {} is not {FORMAT}, which this program reads", contents.format),
            ));
        }
        let path = dir.join(ARRAYS);
        let bytes = fs::read_bounded(&path, limits::BLOB_BYTES)?;
        contents.arrays.verify(&path.display().to_string(), &bytes)?;
        let (arrays, _) = StateDict::from_safetensors(ARRAYS, &bytes)?;
        let reader = Reader { path: &path, arrays: &arrays };
        let n_nodes = contents.tree.root().preorder().count();
        let trained = TrainedTree {
            n_dims: contents.n_dims,
            options: contents.options.train,
            rules: contents.rules,
            reconstruction: reader.reconstruction(contents.n_dims)?,
            classifiers: reader.classifiers(contents.options.train.classifier, n_nodes)?,
            tree: contents.tree,
        };
        let tables = dir.join(TABLES);
        let tables = if tables.exists() { Some(read_tables(&tables)?) } else { None };
        Ok(Self { trained, options: contents.options, source: contents.source, tables })
    }
}

/// A tree, with what its source tells of how it came to be.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownTree {
    /// The tree.
    pub tree: Tree,
    /// Data sets that joined it, in order.
    pub data_sets: Vec<String>,
    /// The counts by which they did.
    pub tables: Option<Tables>,
    /// How many cells of sites it puts at which node; of a version of a reference alone.
    pub annotated: BTreeMap<String, u64>,
}

impl From<SharedTree> for KnownTree {
    fn from(shared: SharedTree) -> Self {
        let joined = shared.data_sets.into_iter().filter(|data| matches!(data.state, State::First | State::Joined));
        let (data_sets, tables) = (joined.map(|data| data.name).collect(), Some(shared.tables));
        Self { tree: shared.tree, data_sets, tables, annotated: BTreeMap::new() }
    }
}

impl KnownTree {
    /// Reads a tree from a directory with classifiers, from a version of a reference that sites learned one over, or from a file in JSON
    /// or Newick form.
    ///
    /// # Errors  [`Error::Common`] for a file that cannot be read, [`Error::Tree`]
    pub fn read(path: &Path) -> Result<Self> {
        if is_version(path) {
            let (parts, _) = read_version(path)?;
            return Ok(Self { annotated: parts.annotated().clone(), ..parts.shared().clone().into() });
        }
        if path.is_dir() {
            let TreeDir { trained, source, tables, .. } = TreeDir::read(path)?;
            let annotated = BTreeMap::new();
            return Ok(Self { tree: trained.tree, data_sets: source.data_sets, tables, annotated });
        }
        let bytes = fs::read_bounded(path, JSON_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| damaged(path, "it holds bytes that are no text"))?;
        let tree = match path.extension().is_some_and(|extension| extension == "json") {
            true if is_shared(&text) => {
                return Ok(serde_json::from_str::<SharedTree>(&text).map_err(|error| damaged(path, error))?.into());
            }
            true => serde_json::from_str(&text).map_err(|error| damaged(path, error))?,
            false => Tree::from_newick(&text).map_err(|source| damaged(path, source))?,
        };
        Ok(Self { tree, data_sets: Vec::new(), tables: None, annotated: BTreeMap::new() })
    }
}

/// Reads a tree alone.
///
/// # Errors  those of [`KnownTree::read`]
pub fn read_tree(path: &Path) -> Result<Tree> {
    Ok(KnownTree::read(path)?.tree)
}

/// Reads a file of tables, or those of a tree that sites learned together.
///
/// # Errors  [`Error::Common`] for a file that cannot be read, [`Error::Tree`]
pub fn read_tables(path: &Path) -> Result<Tables> {
    let bytes = fs::read_bounded(path, JSON_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged(path, "it holds bytes that are no text"))?;
    let read = match is_shared(&text) {
        true => serde_json::from_str::<SharedTree>(&text).map(|shared| shared.tables),
        false => serde_json::from_str(&text),
    };
    read.map_err(|error| damaged(path, error))
}

/// Whether a directory holds a version of a reference.
pub fn is_version(path: &Path) -> bool {
    path.join(VERSION_FILE).is_file()
}

/// Reads what a version of a reference says of a tree, and the digest of its base.
///
/// # Errors  [`Error::Common`] for a version that cannot be read, [`Error::Tree`] for one without a tree
pub fn read_version(path: &Path) -> Result<(TreeParts, Digest)> {
    let dir = ReferenceDir::open(path)?;
    let layout = dir.base()?.card.layout;
    if !tree::is_declared(&layout) {
        return Err(damaged(
            path,
            "sites learn no tree over this reference; `tree share` makes one over which they do",
        ));
    }
    Ok((TreeParts::new(&dir.parts(&layout)?)?, dir.version().base.digest))
}

/// Whether a JSON text is that of a tree that sites learned together.
fn is_shared(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Looked {
        tables: Option<de::IgnoredAny>,
    }
    serde_json::from_str::<Looked>(text).is_ok_and(|looked| looked.tables.is_some())
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).expect("names and numbers are JSON");
    Ok(fs::write_atomic(path, &text)?)
}

fn damaged(path: &Path, detail: impl fmt::Display) -> Error {
    Error::Tree { path: path.into(), detail: detail.to_string() }
}

fn arrays_of(trained: &TrainedTree) -> StateDict {
    let mut arrays = StateDict::new();
    if let Some(Reconstruction { pca, max_error }) = &trained.reconstruction {
        let (n_components, n_dims) = pca.components.dim();
        arrays.insert("pca/mean", Tensor::from_f64(&[n_dims], &pca.mean));
        let components: Vec<f64> = pca.components.iter().copied().collect();
        arrays.insert("pca/components", Tensor::from_f64(&[n_components, n_dims], &components));
        arrays.insert("pca/explained_variance", Tensor::from_f64(&[n_components], &pca.explained_variance));
        arrays.insert("pca/explained_variance_ratio", Tensor::from_f64(&[n_components], &pca.explained_variance_ratio));
        if let Some(most) = max_error {
            arrays.insert("max_error", Tensor::from_f64(&[1], &[*most]));
        }
    }
    match &trained.classifiers {
        Classifiers::Nearest { x, nodes, max_distance } => {
            arrays.insert("knn/x", singles(x));
            if let Some(most) = max_distance {
                arrays.insert("max_distance", Tensor::from_f64(&[1], &[*most]));
            }
            for (number, node) in nodes.iter().enumerate() {
                let Some(NearestNode { rows, classes, candidates, k }) = node else { continue };
                let classes: Vec<u32> = classes.iter().map(|&class| u32::from(class)).collect();
                arrays.insert(format!("knn/{number}/rows"), numbers(rows));
                arrays.insert(format!("knn/{number}/classes"), numbers(&classes));
                arrays.insert(format!("knn/{number}/candidates"), numbers(candidates));
                arrays.insert(format!("knn/{number}/k"), Tensor::from_i64(&[1], &[*k as i64]));
            }
        }
        Classifiers::Linear(nodes) => {
            for (number, node) in nodes.iter().enumerate() {
                let Some(BinaryNode { components, svm }) = node else { continue };
                if let Some(components) = components {
                    arrays.insert(format!("svm/{number}/components"), numbers(components));
                }
                arrays.insert(format!("svm/{number}/weights"), Tensor::from_f64(&[svm.weights.len()], &svm.weights));
                arrays.insert(format!("svm/{number}/intercept"), Tensor::from_f64(&[1], &[svm.intercept]));
            }
        }
        Classifiers::OneClass(nodes) => {
            for (number, node) in nodes.iter().enumerate() {
                let Some(BinaryNode { components, svm }) = node else { continue };
                if let Some(components) = components {
                    arrays.insert(format!("svm/{number}/components"), numbers(components));
                }
                arrays.insert(format!("svm/{number}/vectors"), singles(&svm.vectors));
                arrays.insert(format!("svm/{number}/weights"), Tensor::from_f64(&[svm.weights.len()], &svm.weights));
                arrays.insert(format!("svm/{number}/kernel"), Tensor::from_f64(&[2], &[svm.rho, svm.gamma]));
            }
        }
    }
    arrays
}

fn singles(matrix: &Array2<f32>) -> Tensor {
    let values: Vec<f32> = matrix.iter().copied().collect();
    Tensor::from_f32(&[matrix.nrows(), matrix.ncols()], &values)
}

fn numbers(values: &[u32]) -> Tensor {
    let values: Vec<i64> = values.iter().map(|&value| i64::from(value)).collect();
    Tensor::from_i64(&[values.len()], &values)
}

struct Reader<'a> {
    path: &'a Path,
    arrays: &'a StateDict,
}

impl Reader<'_> {
    fn reconstruction(&self, n_dims: usize) -> Result<Option<Reconstruction>> {
        if self.arrays.get("pca/mean").is_none() {
            return Ok(None);
        }
        let mean = self.doubles("pca/mean", Some(n_dims))?;
        let explained_variance = self.doubles("pca/explained_variance", None)?;
        let n_components = explained_variance.len();
        let explained_variance_ratio = self.doubles("pca/explained_variance_ratio", Some(n_components))?;
        let components = self.doubles("pca/components", Some(n_components * n_dims))?;
        let components = Array2::from_shape_vec((n_components, n_dims), components).map_err(|e| self.fault(e))?;
        let max_error = self.optional("max_error")?;
        Ok(Some(Reconstruction {
            pca: Pca { mean, components, explained_variance, explained_variance_ratio },
            max_error,
        }))
    }

    fn classifiers(&self, classifier: Classifier, n_nodes: usize) -> Result<Classifiers> {
        Ok(match classifier {
            Classifier::Knn => {
                let x = self.singles("knn/x")?;
                let node = |number| self.nearest(number, x.nrows(), n_nodes);
                let nodes = (0..n_nodes).map(node).collect::<Result<_>>()?;
                Classifiers::Nearest { x, nodes, max_distance: self.optional("max_distance")? }
            }
            Classifier::Svm => {
                Classifiers::Linear((0..n_nodes).map(|number| self.linear(number)).collect::<Result<_>>()?)
            }
            Classifier::SvmOcc => {
                Classifiers::OneClass((0..n_nodes).map(|number| self.one_class(number)).collect::<Result<_>>()?)
            }
        })
    }

    fn nearest(&self, number: usize, n_cells: usize, n_nodes: usize) -> Result<Option<NearestNode>> {
        if self.arrays.get(&format!("knn/{number}/rows")).is_none() {
            return Ok(None);
        }
        let rows = self.numbers(&format!("knn/{number}/rows"), n_cells)?;
        let candidates = self.numbers(&format!("knn/{number}/candidates"), n_nodes)?;
        let classes = self.numbers(&format!("knn/{number}/classes"), candidates.len())?;
        let k = self.numbers(&format!("knn/{number}/k"), rows.len() + 1)?;
        let [k] = k[..] else { return Err(self.fault(format!("`knn/{number}/k` is no number of neighbours"))) };
        if classes.len() != rows.len() {
            return Err(self.fault(format!(
                "`knn/{number}/classes` has {} entries, not {}",
                classes.len(),
                rows.len()
            )));
        }
        let classes = classes.into_iter().map(|class| class as u16).collect();
        Ok(Some(NearestNode { rows, classes, candidates, k: k as usize }))
    }

    fn linear(&self, number: usize) -> Result<Option<BinaryNode<LinearSvm>>> {
        if self.arrays.get(&format!("svm/{number}/weights")).is_none() {
            return Ok(None);
        }
        let weights = self.doubles(&format!("svm/{number}/weights"), None)?;
        let intercept = self.doubles(&format!("svm/{number}/intercept"), Some(1))?[0];
        Ok(Some(BinaryNode { components: self.components(number)?, svm: LinearSvm { weights, intercept } }))
    }

    fn one_class(&self, number: usize) -> Result<Option<BinaryNode<OneClassSvm>>> {
        if self.arrays.get(&format!("svm/{number}/weights")).is_none() {
            return Ok(None);
        }
        let vectors = self.singles(&format!("svm/{number}/vectors"))?;
        let weights = self.doubles(&format!("svm/{number}/weights"), Some(vectors.nrows()))?;
        let kernel = self.doubles(&format!("svm/{number}/kernel"), Some(2))?;
        let svm = OneClassSvm { vectors, weights, rho: kernel[0], gamma: kernel[1] };
        Ok(Some(BinaryNode { components: self.components(number)?, svm }))
    }

    fn components(&self, number: usize) -> Result<Option<Vec<u32>>> {
        let name = format!("svm/{number}/components");
        let Some(_) = self.arrays.get(&name) else { return Ok(None) };
        let n_components = self.doubles("pca/explained_variance", None)?.len();
        Ok(Some(self.numbers(&name, n_components)?))
    }

    fn optional(&self, name: &str) -> Result<Option<f64>> {
        match self.arrays.get(name) {
            Some(_) => Ok(Some(self.doubles(name, Some(1))?[0])),
            None => Ok(None),
        }
    }

    fn doubles(&self, name: &str, n: Option<usize>) -> Result<Vec<f64>> {
        let tensor = self.arrays.require(ARRAYS, name)?;
        let found = tensor.bytes().len() / DType::F64.size();
        if tensor.dtype() != DType::F64 || n.is_some_and(|n| n != found) {
            return Err(self.fault(format!("`{name}` is {tensor:?}")));
        }
        let values = tensor.bytes().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")));
        let values: Vec<f64> = values.collect();
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(self.fault(format!("`{name}` holds a value that is not finite"))),
        }
    }

    fn singles(&self, name: &str) -> Result<Array2<f32>> {
        let tensor = self.arrays.require(ARRAYS, name)?;
        let [n_rows, n_columns] = tensor.shape() else { return Err(self.fault(format!("`{name}` is {tensor:?}"))) };
        let values = tensor.to_f32(name)?;
        Array2::from_shape_vec((*n_rows, *n_columns), values).map_err(|error| self.fault(error))
    }

    /// Whole numbers below `end`.
    fn numbers(&self, name: &str, end: usize) -> Result<Vec<u32>> {
        let values = self.arrays.require(ARRAYS, name)?.to_i64(name)?;
        let number = |value: i64| u32::try_from(value).ok().filter(|&value| (value as usize) < end);
        values
            .into_iter()
            .map(|value| number(value).ok_or_else(|| self.fault(format!("`{name}` holds {value}, not below {end}"))))
            .collect()
    }

    fn fault(&self, detail: impl fmt::Display) -> Error {
        damaged(self.path, detail)
    }
}

/// Name of the file that says what a directory holds.
pub const TREE: &str = "tree.json";
/// Name of the file with the counts.
pub const TABLES: &str = "tables.json";
const ARRAYS: &str = "arrays.safetensors";
const FORMAT: u32 = 1;
/// More than a tree of a hundred thousand labels takes.
const JSON_BYTES: u64 = 256 << 20;

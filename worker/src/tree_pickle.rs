//! Trees that scHPL wrote with Python's `pickle`: read as data, nothing is executed.
//!
//! Nearest cells are read from scikit-learn's classifiers and from FAISS' flat index; support vector machines from
//! scikit-learn's.

use std::path::Path;

use archipelago_analysis::{
    hierarchy::{
        Backend, BinaryNode, Classifier, Classifiers, JoinOptions, LearnOptions, LinearSvm, NearestNode, Node,
        OneClassSvm, Reconstruction, Rules, TrainOptions, TrainedTree, Tree,
    },
    pca::Pca,
};
use archipelago_common::{fs, limits};
use archipelago_models::formats::pickle::{NdArray, Scalar, Value, parse};
use ndarray::Array2;

use crate::error::{Error, Result};

/// Reads a pickled tree with its classifiers.
///
/// # Errors  [`Error::Common`] for a file that cannot be read, [`Error::Tree`] for one that holds something else
pub fn read(path: &Path) -> Result<(TrainedTree, LearnOptions)> {
    let bytes = fs::read_bounded(path, limits::BLOB_BYTES)?;
    let fault = |detail: String| Error::Tree { path: path.into(), detail };
    let pickle = parse(&bytes).map_err(|error| fault(error.to_string()))?;
    read_value(pickle.root()).map_err(fault)
}

/// What is wrong, in words.
type Read<T> = std::result::Result<T, String>;

fn read_value(root: Value<'_>) -> Read<(TrainedTree, LearnOptions)> {
    // A tree is a list of one node.
    let root = root.items().and_then(|items| items.first().copied()).unwrap_or(root);
    let mut nodes = Vec::new();
    let tree = Tree::new(node(root, &mut nodes, 0)?);
    let top = nodes[0];

    let pca = top.get("pca").filter(|pca| !pca.is_none()).map(pca).transpose()?;
    let max_error = top.get("maxRE").and_then(float).filter(|&most| most > 0.0);
    let dimred = top.get("dimred").and_then(Value::as_bool).unwrap_or(false);
    let classifiers: Vec<Option<Value<'_>>> =
        nodes.iter().map(|node| node.get("classifier").filter(|value| !value.is_none())).collect();
    let class = classifiers.iter().flatten().next().and_then(|value| value.call()).map(|call| call.class);
    let (classifier, backend) = match class {
        Some(class) if class.ends_with(".KNeighborsClassifier") => (Classifier::Knn, Backend::Exact),
        Some(class) if class.ends_with(".FaissKNeighbors") => (Classifier::Knn, Backend::Index),
        Some(class) if class.ends_with(".LinearSVC") => (Classifier::Svm, Backend::Exact),
        Some(class) if class.ends_with(".OneClassSVM") => (Classifier::SvmOcc, Backend::Exact),
        Some(class) => return Err(format!("its nodes decide with `{class}`, which this program does not read")),
        None => return Err("its nodes have no classifiers: it was not trained".into()),
    };
    let (fitted, n_neighbors) = match classifier {
        Classifier::Knn => nearest(&tree, &classifiers, top)?,
        Classifier::Svm => (Classifiers::Linear(binary(&nodes, &classifiers, linear)?), 50),
        Classifier::SvmOcc => (Classifiers::OneClass(binary(&nodes, &classifiers, one_class)?), 50),
    };
    let n_dims = match (&pca, &fitted) {
        (Some(pca), _) => pca.mean.len(),
        (None, Classifiers::Nearest { x, .. }) => x.ncols(),
        (None, Classifiers::Linear(nodes)) => nodes.iter().flatten().next().map_or(0, |node| node.svm.weights.len()),
        (None, Classifiers::OneClass(nodes)) => {
            nodes.iter().flatten().next().map_or(0, |node| node.svm.vectors.ncols())
        }
    };
    let train = TrainOptions {
        classifier,
        backend,
        n_neighbors,
        dimred,
        use_re: max_error.is_some(),
        ..TrainOptions::default()
    };
    let join = JoinOptions { rules: Rules::Upstream, ..JoinOptions::default() };
    let options = LearnOptions { train, join, ..LearnOptions::default() };
    let reconstruction = pca.map(|pca| Reconstruction { pca, max_error });
    let rules = Rules::Upstream;
    Ok((TrainedTree { tree, n_dims, options: train, rules, reconstruction, classifiers: fitted }, options))
}

/// A node with those below it; their attributes in preorder.
fn node<'a>(value: Value<'a>, nodes: &mut Vec<Value<'a>>, depth: usize) -> Read<Node> {
    let call = value.call().filter(|call| call.class.ends_with(".TreeNode")).ok_or("it is no tree of scHPL")?;
    let state = call.state.ok_or("a node has no attributes")?;
    if depth > DEEPEST || nodes.len() > MOST_NODES {
        return Err("the tree is too large".into());
    }
    nodes.push(state);
    let names = state.get("name").or_else(|| state.get("_name")).and_then(Value::texts);
    let names = names.filter(|names| !names.is_empty()).ok_or("a node has no name")?;
    let children = state.get("descendants").and_then(Value::items).ok_or("a node has no list of children")?;
    let children = children.into_iter().map(|child| node(child, nodes, depth + 1)).collect::<Read<_>>()?;
    Ok(Node::named(names, children))
}

fn pca(value: Value<'_>) -> Read<Pca> {
    let state = value.call().and_then(|call| call.state).ok_or("its PCA has no attributes")?;
    let (mean, _) = floats(state, "mean_")?;
    let (components, shape) = floats(state, "components_")?;
    Ok(Pca {
        components: matrix(components, &shape, mean.len())?,
        mean,
        explained_variance: floats(state, "explained_variance_")?.0,
        explained_variance_ratio: floats(state, "explained_variance_ratio_")?.0,
    })
}

/// Nodes that ask nearest cells. Each holds its own; all are found among those of the root.
fn nearest(tree: &Tree, classifiers: &[Option<Value<'_>>], top: Value<'_>) -> Read<(Classifiers, usize)> {
    let points = |value: &Option<Value<'_>>| value.map(Points::of).transpose();
    let points: Vec<Option<Points>> = classifiers.iter().map(points).collect::<Read<_>>()?;
    let root = points[0].as_ref().ok_or("its root has no classifier")?;
    let names: Vec<&str> = tree.root().preorder().map(Node::name).collect();
    let nodes = points.iter().map(|points| points.as_ref().map(|points| points.within(root, &names)).transpose());
    let nodes = nodes.collect::<Read<_>>()?;
    let max_distance = top.get("maxDist").and_then(float).filter(|most| most.is_finite());
    Ok((Classifiers::Nearest { x: root.x.clone(), nodes, max_distance }, root.k))
}

/// Training cells of one node.
struct Points {
    x: Array2<f32>,
    labels: Vec<String>,
    k: usize,
}

impl Points {
    fn of(value: Value<'_>) -> Read<Self> {
        let call = value.call().ok_or("a classifier is no object")?;
        let state = call.state.ok_or("a classifier has no attributes")?;
        if call.class.ends_with(".FaissKNeighbors") {
            let index = state.get("index").and_then(|index| index.call()?.state).and_then(|state| state.get("this"));
            let bytes = index.and_then(bytes_of).ok_or("a FAISS index has no bytes")?;
            let labels = state.get("y").and_then(texts).ok_or("a classifier has no labels")?;
            return Self { x: flat_index(&bytes)?, labels, k: count(state, "k")? }.checked();
        }
        let classes = state.get("classes_").and_then(texts).ok_or("a classifier has no classes")?;
        let codes = state.get("_y").and_then(NdArray::of).and_then(|array| array.scalars());
        let label = |code: Scalar| match code {
            Scalar::Int(code) => classes.get(usize::try_from(code).ok()?).cloned(),
            _ => None,
        };
        let labels = codes.and_then(|codes| codes.into_iter().map(label).collect());
        let (values, shape) = floats(state, "_fit_X")?;
        let [n_rows, n_columns] = shape[..] else { return Err("`_fit_X` is no matrix".into()) };
        let values = values.into_iter().map(|value| value as f32).collect();
        let x = Array2::from_shape_vec((n_rows, n_columns), values).map_err(|error| error.to_string())?;
        Self { x, labels: labels.ok_or("a classifier has no labels")?, k: count(state, "n_neighbors")? }.checked()
    }

    fn checked(self) -> Read<Self> {
        match self.labels.len() == self.x.nrows() && self.k > 0 && self.x.iter().all(|value| value.is_finite()) {
            true => Ok(self),
            false => Err(format!("a classifier has {} cells and {} labels", self.x.nrows(), self.labels.len())),
        }
    }

    /// The same as rows of the root's cells, in which a node's cells keep their order.
    fn within(&self, root: &Self, names: &[&str]) -> Read<NearestNode> {
        let mut candidates: Vec<&String> = self.labels.iter().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let number = |name: &&String| names.iter().position(|known| known == name).map(|at| at as u32);
        let numbers = candidates.iter().map(number).collect::<Option<Vec<u32>>>();
        let (mut rows, mut at) = (Vec::with_capacity(self.labels.len()), 0);
        for cell in self.x.rows() {
            while at < root.x.nrows() && root.x.row(at) != cell {
                at += 1;
            }
            rows.push(at as u32);
            at += 1;
        }
        if at > root.x.nrows() {
            return Err("a node has cells that its root has not".into());
        }
        let class = |label: &String| candidates.binary_search(&label).unwrap_or(0) as u16;
        let classes = self.labels.iter().map(class).collect();
        let candidates = numbers.ok_or("a classifier names a node that the tree has not")?;
        Ok(NearestNode { rows, classes, candidates, k: self.k })
    }
}

/// The vectors of a serialised `IndexFlatL2`: a header, their number, and 32-bit floats.
fn flat_index(bytes: &[u8]) -> Read<Array2<f32>> {
    let part = |from: usize, n: usize| bytes.get(from..from + n).ok_or("a FAISS index ends early");
    if part(0, 4)? != b"IxF2" {
        return Err("a FAISS index is not flat with Euclidean distances".into());
    }
    let number = |from: usize, n: usize| -> Read<usize> {
        let mut wide = [0; 8];
        wide[..n].copy_from_slice(part(from, n)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|error| error.to_string())
    };
    let (n_dims, n_cells, n_values) = (number(4, 4)?, number(8, 8)?, number(37, 8)?);
    if n_cells.checked_mul(n_dims) != Some(n_values) {
        return Err(format!("a FAISS index has {n_values} numbers for {n_cells} cells of {n_dims} dimensions"));
    }
    let values = part(45, n_values.checked_mul(4).ok_or("a FAISS index is too large")?)?;
    let values = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Array2::from_shape_vec((n_cells, n_dims), values).map_err(|error| error.to_string())
}

fn binary<S>(
    nodes: &[Value<'_>],
    classifiers: &[Option<Value<'_>>],
    read: impl Fn(Value<'_>) -> Read<S>,
) -> Read<Vec<Option<BinaryNode<S>>>> {
    let node = |(state, classifier): (&Value<'_>, &Option<Value<'_>>)| {
        let Some(value) = classifier else { return Ok(None) };
        let attributes = value.call().and_then(|call| call.state).ok_or("a classifier has no attributes")?;
        let explaining = state.get("explainingpc").and_then(NdArray::of).and_then(|array| array.scalars());
        let number = |at: Scalar| match at {
            Scalar::Int(at) => u32::try_from(at).ok(),
            _ => None,
        };
        let components = explaining.and_then(|all| all.into_iter().map(number).collect::<Option<Vec<u32>>>());
        Ok(Some(BinaryNode { components, svm: read(attributes)? }))
    };
    nodes.iter().zip(classifiers).map(node).collect()
}

fn linear(state: Value<'_>) -> Read<LinearSvm> {
    let (weights, _) = floats(state, "coef_")?;
    let intercept = floats(state, "intercept_")?.0.first().copied().ok_or("a classifier has no intercept")?;
    Ok(LinearSvm { weights, intercept })
}

fn one_class(state: Value<'_>) -> Read<OneClassSvm> {
    let (values, shape) = floats(state, "support_vectors_")?;
    let [n_rows, n_columns] = shape[..] else { return Err("`support_vectors_` is no matrix".into()) };
    let values = values.into_iter().map(|value| value as f32).collect();
    let vectors = Array2::from_shape_vec((n_rows, n_columns), values).map_err(|error| error.to_string())?;
    let (weights, _) = floats(state, "dual_coef_")?;
    let intercept = floats(state, "intercept_")?.0.first().copied().ok_or("a classifier has no intercept")?;
    let gamma = state.get("_gamma").and_then(float).ok_or("a classifier has no width")?;
    if weights.len() != vectors.nrows() {
        return Err(format!("a classifier has {} vectors and {} weights", vectors.nrows(), weights.len()));
    }
    Ok(OneClassSvm { vectors, weights, rho: -intercept, gamma })
}

fn matrix(values: Vec<f64>, shape: &[usize], n_columns: usize) -> Read<Array2<f64>> {
    match shape {
        [n_rows, found] if *found == n_columns => {
            Array2::from_shape_vec((*n_rows, n_columns), values).map_err(|error| error.to_string())
        }
        other => Err(format!("a matrix is {other:?}, expected {n_columns} columns")),
    }
}

/// The numbers of an array, all finite, and its shape.
fn floats(state: Value<'_>, name: &str) -> Read<(Vec<f64>, Vec<usize>)> {
    let array = state.get(name).and_then(NdArray::of).ok_or_else(|| format!("`{name}` is missing or no array"))?;
    let number = |value: Scalar| match value {
        Scalar::Float(value) => Some(value).filter(|value| value.is_finite()),
        Scalar::Int(value) => Some(value as f64),
        _ => None,
    };
    let values = array.scalars().and_then(|all| all.into_iter().map(number).collect::<Option<Vec<f64>>>());
    Ok((values.ok_or_else(|| format!("`{name}` does not hold finite numbers"))?, array.shape))
}

fn float(value: Value<'_>) -> Option<f64> {
    match value.scalar()? {
        Scalar::Float(value) => Some(value),
        Scalar::Int(value) => Some(value as f64),
        _ => None,
    }
}

fn texts(value: Value<'_>) -> Option<Vec<String>> {
    let text = |value: Scalar| match value {
        Scalar::Text(text) => Some(text),
        _ => None,
    };
    NdArray::of(value)?.scalars()?.into_iter().map(text).collect()
}

/// Bytes, plain or as an array of small integers.
fn bytes_of(value: Value<'_>) -> Option<Vec<u8>> {
    if let Some(bytes) = value.bytes() {
        return Some(bytes);
    }
    let byte = |value: Scalar| match value {
        Scalar::Int(value) => u8::try_from(value).ok(),
        _ => None,
    };
    NdArray::of(value)?.scalars()?.into_iter().map(byte).collect()
}

fn count(state: Value<'_>, name: &str) -> Read<usize> {
    let value = state.get(name).and_then(Value::as_int).and_then(|value| usize::try_from(value).ok());
    value.ok_or_else(|| format!("`{name}` is no number of neighbours"))
}

const DEEPEST: usize = 200;
const MOST_NODES: usize = 100_000;

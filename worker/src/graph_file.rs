//! The neighbour graph of a file of cells, where scanpy keeps it: `obsp` and `uns['neighbors']`.

use archipelago_analysis::{graph::Edge, neighbours::Neighbours};
use archipelago_anndata::{AnnData, Array, Csr, Dict, Element, Matrix};

use crate::error::{Error, Result};

/// How a graph was made.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphOptions {
    /// Size of a neighbourhood, the cell itself included.
    pub n_neighbors: usize,
    /// The embedding that distances were taken in.
    pub use_rep: String,
    /// Seed of an approximate search.
    pub seed: u64,
}

/// Writes distances and weights with how they were made.
///
/// # Errors  [`Error::Anndata`] for more cells than a sparse matrix can have
pub fn write(adata: &mut AnnData, neighbours: &Neighbours, edges: &[Edge], options: &GraphOptions) -> Result<()> {
    let n_cells = adata.n_obs();
    let indptr = (0..=n_cells).map(|cell| cell * neighbours.k()).collect();
    let (mut indices, mut distances) = (Vec::new(), Vec::new());
    for (rows, of_rows) in neighbours.iter() {
        indices.extend_from_slice(rows);
        distances.extend(of_rows.iter().map(|&distance| distance as f32));
    }
    let distances = Csr::new(n_cells, n_cells, indptr, indices, distances)?;
    adata.obsp.insert("distances".to_owned(), distances.into());
    adata.obsp.insert("connectivities".to_owned(), weights(n_cells, edges)?.into());
    let text = |text: &str| Element::from(text);
    let int = |value: i64| Element::Array(Array::int(value));
    let params = Dict::from([
        ("n_neighbors".to_owned(), int(options.n_neighbors as i64)),
        ("method".to_owned(), text("umap")),
        ("metric".to_owned(), text("euclidean")),
        ("random_state".to_owned(), int(options.seed as i64)),
        ("use_rep".to_owned(), text(&options.use_rep)),
    ]);
    let entry = Dict::from([
        ("connectivities_key".to_owned(), text("connectivities")),
        ("distances_key".to_owned(), text("distances")),
        ("params".to_owned(), Element::Dict(params)),
    ]);
    adata.uns.insert("neighbors".to_owned(), Element::Dict(entry));
    Ok(())
}

fn weights(n_cells: usize, edges: &[Edge]) -> Result<Csr> {
    let mut indptr = vec![0; n_cells + 1];
    for edge in edges {
        indptr[edge.head as usize + 1] += 1;
    }
    for cell in 0..n_cells {
        indptr[cell + 1] += indptr[cell];
    }
    // Edges come in order of head and tail.
    let indices = edges.iter().map(|edge| edge.tail).collect();
    let data = edges.iter().map(|edge| edge.weight as f32).collect();
    Ok(Csr::new(n_cells, n_cells, indptr, indices, data)?)
}

/// The graph that the file holds, with the embedding it was made from, if it has one: ours or scanpy's.
///
/// # Errors  [`Error::Anndata`] for a graph that is no matrix of numbers
pub fn read(adata: &AnnData) -> Result<Option<(Vec<Edge>, Option<String>)>> {
    let entry = match adata.uns.get("neighbors") {
        Some(Element::Dict(entry)) => entry,
        _ => return Ok(None),
    };
    let key = text_of(entry.get("connectivities_key")).unwrap_or("connectivities");
    let Some(matrix) = adata.obsp.get(key) else { return Ok(None) };
    let use_rep = match entry.get("params") {
        Some(Element::Dict(params)) => text_of(params.get("use_rep")).map(str::to_owned),
        _ => None,
    };
    Ok(Some((edges(matrix)?, use_rep)))
}

fn edges(matrix: &Matrix) -> Result<Vec<Edge>> {
    let csr = matrix.to_csr()?;
    let of_cell = |cell: usize| {
        let (tails, weights) = csr.row(cell);
        let edge = move |(&tail, &weight)| Edge { head: cell as u32, tail, weight: f64::from(weight) };
        tails.iter().zip(weights).map(edge).collect::<Vec<_>>()
    };
    let edges: Vec<Edge> = (0..csr.n_rows()).flat_map(of_cell).filter(|edge| edge.weight != 0.0).collect();
    if let Some(edge) = edges.iter().find(|edge| !(edge.weight > 0.0 && edge.weight.is_finite())) {
        let (found, expected) = (format!("the weight {}", edge.weight), "weights above 0");
        return Err(archipelago_anndata::Error::Kind { name: "obsp/connectivities".into(), found, expected }.into());
    }
    Ok(edges)
}

fn text_of(element: Option<&Element>) -> Option<&str> {
    match element {
        Some(Element::Array(array)) => array.as_text(),
        _ => None,
    }
}

/// The embedding that a command works on if none is named: ours, else the components, else `X` of few genes.
///
/// # Errors  [`Error::NoEmbedding`]
pub fn default_rep(adata: &AnnData) -> Result<String> {
    let known = ["X_archipelago", "X_pca"].into_iter().find(|name| adata.obsm.contains_key(*name));
    match known {
        Some(name) => Ok(name.to_owned()),
        None if adata.n_vars() <= FEW_GENES => Ok("X".to_owned()),
        None => Err(Error::NoEmbedding { available: adata.obsm.keys().cloned().collect::<Vec<_>>().join(", ") }),
    }
}

/// As many genes as a PCA would give components.
const FEW_GENES: usize = 50;

#[cfg(test)]
mod tests {
    use archipelago_analysis::{graph::connectivities, neighbours::self_knn};
    use archipelago_anndata::DataFrame;
    use ndarray::array;

    use super::*;

    #[test]
    fn a_graph_is_read_as_it_was_written() {
        let x = array![[0.0f32], [1.0], [3.0], [7.0]];
        let neighbours = self_knn(x.view(), 2).unwrap();
        let written = connectivities(&neighbours);
        let mut adata = AnnData { obs: DataFrame::new(["a", "b", "c", "d"]), ..AnnData::default() };
        assert_eq!(read(&adata).unwrap(), None);
        let options = GraphOptions { n_neighbors: 3, use_rep: "X_pca".into(), seed: 0 };
        write(&mut adata, &neighbours, &written, &options).unwrap();
        adata.check().unwrap();
        let (edges, use_rep) = read(&adata).unwrap().unwrap();
        assert_eq!(use_rep.as_deref(), Some("X_pca"));
        let ends = |edges: &[Edge]| edges.iter().map(|edge| (edge.head, edge.tail)).collect::<Vec<_>>();
        assert_eq!(ends(&edges), ends(&written));
        assert!(edges.iter().zip(&written).all(|(a, b)| (a.weight - b.weight).abs() < 1e-6));
    }

    #[test]
    fn an_embedding_is_chosen_or_asked_for() {
        let mut adata = AnnData { var: DataFrame::new((0..99).map(|i| i.to_string())), ..AnnData::default() };
        assert!(matches!(default_rep(&adata), Err(Error::NoEmbedding { .. })));
        adata.obsm.insert("X_pca".into(), Element::Null);
        assert_eq!(default_rep(&adata).unwrap(), "X_pca");
    }
}

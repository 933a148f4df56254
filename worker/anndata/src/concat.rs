//! Data sets laid below each other, as `anndata.concat` does along the cells.

pub(crate) mod columns;
pub(crate) mod stack;

use std::collections::{HashMap, HashSet};

use crate::{AnnData, Column, DataFrame, Dict, Error, Matrix, Result, names};

/// Which genes, and which columns of `obs`, the result has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Those that every part has.
    Inner,
    /// Those that any part has: missing measurements are zero, missing annotations are missing.
    Outer,
}

/// Lays data sets below each other.
///
/// Genes and columns come in order of their first appearance. Layers and elements of `obsm` are kept where every part has
/// them (in `obsm` with as many columns); columns of `var` where all parts agree about them. Types are kept where all parts
/// share one: a dense matrix stays dense, integers stay integers, categories keep their order. `uns`, `raw`, `varm` and pairs
/// belong to single parts and are left out, as `anndata.concat` does by default; what else is left out is said in a warning.
///
/// # Errors
/// [`Error::NoCells`] without a part, [`Error::DuplicateGenes`] when a part names a gene twice, [`Error::NoCommonGenes`] when
/// an inner join leaves none, [`Error::DuplicateCells`], [`Error::Modalities`] for a part of several modalities. A part without
/// `X` is none: the result has no `X` then.
pub fn concat(parts: &[AnnData], join: Join) -> Result<AnnData> {
    let [first, ..] = parts else { return Err(Error::NoCells) };
    for part in parts {
        part.beside.refuse_modalities()?;
    }
    let genes = genes(parts, join)?;
    let position: HashMap<&str, u32> = genes.iter().map(String::as_str).zip(0..).collect();
    let targets: Vec<Vec<Option<u32>>> =
        parts.iter().map(|part| part.var_names().iter().map(|gene| position.get(&**gene).copied()).collect()).collect();
    let stack = |matrices: Vec<&Matrix>| stack::matrices(&matrices, &targets, genes.len());
    let x: Option<Vec<&Matrix>> = parts.iter().map(|part| part.x.as_ref()).collect();
    let mut all = AnnData { x: x.map(stack).transpose()?, obs: frames(parts, join)?, ..AnnData::default() };
    for name in first.layers.keys() {
        let layers: Option<Vec<&Matrix>> = parts.iter().map(|part| part.layers.get(name)).collect();
        if let Some(layers) = layers {
            all.layers.insert(name.clone(), stack(layers)?);
        }
    }
    all.var = var(parts, &genes)?;
    all.obsm = obsm(parts)?;
    say_what_is_left_out(parts, &all);
    all.check()?;
    Ok(all)
}

/// What every part has, and the result has not although a reader would look for it there.
fn say_what_is_left_out(parts: &[AnnData], all: &AnnData) {
    for name in parts[0].obsm.keys().filter(|name| !all.obsm.contains_key(*name)) {
        if parts.iter().all(|part| part.obsm.contains_key(name)) {
            tracing::warn!("`obsm/{name}` is left out: it differs in kind or width from file to file");
        }
    }
    let beside: std::collections::BTreeSet<&String> = parts.iter().flat_map(|part| part.beside.members()).collect();
    for name in beside {
        tracing::warn!("`{name}` is left out: it is no part of a data set, and belongs to a single file");
    }
}

fn genes(parts: &[AnnData], join: Join) -> Result<Vec<String>> {
    let mut sets: Vec<HashSet<&str>> = Vec::with_capacity(parts.len());
    for part in parts {
        let (n_duplicated, examples) = names::repeated(part.var_names());
        if n_duplicated > 0 {
            return Err(Error::DuplicateGenes { of: "a part", n_duplicated, examples });
        }
        sets.push(part.var_names().iter().map(String::as_str).collect());
    }
    if join == Join::Outer {
        let mut seen = HashSet::new();
        let all = parts.iter().flat_map(AnnData::var_names);
        return Ok(all.filter(|gene| seen.insert(gene.as_str())).cloned().collect());
    }
    let is_shared = |gene: &&String| sets.iter().all(|set| set.contains(gene.as_str()));
    let shared: Vec<String> = parts[0].var_names().iter().filter(is_shared).cloned().collect();
    if shared.is_empty() {
        let few = |part: &AnnData| part.var_names().iter().take(N_EXAMPLES).cloned().collect();
        return Err(Error::NoCommonGenes { query: few(&parts[parts.len() - 1]), panel: few(&parts[0]) });
    }
    Ok(shared)
}

/// What is known of the cells of all parts.
pub(crate) fn frames(parts: &[AnnData], join: Join) -> Result<DataFrame> {
    let names: Vec<String> = parts.iter().flat_map(|part| part.obs_names().iter().cloned()).collect();
    names::check_unique_cells(&names)?;
    let mut obs = DataFrame::new(names);
    if let Some(name) = shared_index_name(parts) {
        obs = obs.with_index_name(name);
    }
    let mut done = HashSet::new();
    for (name, _) in parts.iter().flat_map(|part| part.obs.columns()) {
        let columns: Vec<Option<&Column>> = parts.iter().map(|part| of(&part.obs, name)).collect();
        if done.insert(name.as_str()) && (join == Join::Outer || columns.iter().all(Option::is_some)) {
            let lengths: Vec<usize> = parts.iter().map(AnnData::n_obs).collect();
            match columns::concatenated(&columns, &lengths) {
                Some(column) => obs.insert(name.as_str(), column)?,
                None => {
                    tracing::warn!("obs column `{name}` is left out: its values are of a type that is not known here")
                }
            }
        }
    }
    Ok(obs)
}

/// A column of a frame, also one that cannot be read.
fn of<'a>(frame: &'a DataFrame, name: &str) -> Option<&'a Column> {
    frame.columns().iter().find(|(known, _)| known == name).map(|(_, column)| column)
}

/// The name of the index where all parts give it one name.
fn shared_index_name(parts: &[AnnData]) -> Option<String> {
    let name = parts[0].obs.index_name()?;
    let is_shared = parts.iter().all(|part| part.obs.index_name() == Some(name));
    is_shared.then(|| name.to_owned())
}

/// Columns that hold the same for every gene in all parts that have the gene; parts that lack the column do not agree.
fn var(parts: &[AnnData], genes: &[String]) -> Result<DataFrame> {
    let mut var = DataFrame::new(genes.to_vec());
    for (name, _) in parts[0].var.columns() {
        let Ok(columns) = parts.iter().map(|part| part.var.column(name)).collect::<Result<Vec<_>>>() else { continue };
        let mut value_of: HashMap<&str, (usize, usize)> = HashMap::new();
        let texts: Vec<Vec<Option<String>>> = columns.iter().map(|column| column.to_strings()).collect();
        let mut agree = true;
        for (part, adata) in parts.iter().enumerate() {
            for (row, gene) in adata.var_names().iter().enumerate() {
                let (p, r) = *value_of.entry(gene).or_insert((part, row));
                agree &= texts[p][r] == texts[part][row];
            }
        }
        let rows: Option<Vec<usize>> = genes
            .iter()
            .map(|gene| value_of.get(&**gene).filter(|(part, _)| *part == 0).map(|(_, row)| *row))
            .collect();
        if let (true, Some(rows)) = (agree, rows) {
            var.insert(name.as_str(), columns[0].select_rows(&rows))?;
        }
    }
    Ok(var)
}

fn obsm(parts: &[AnnData]) -> Result<Dict> {
    let mut all = Dict::new();
    for name in parts[0].obsm.keys() {
        let elements: Option<Vec<_>> = parts.iter().map(|part| part.obsm.get(name)).collect();
        let Some(elements) = elements else { continue };
        if let Some(element) = stack::elements(&elements)? {
            all.insert(name.clone(), element);
        }
    }
    Ok(all)
}

/// Names shown in an error.
const N_EXAMPLES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, Csr};

    fn part(cells: &[&str], genes: &[&str], values: &[f32]) -> AnnData {
        let x = Csr::from_dense(cells.len(), genes.len(), values).unwrap();
        let mut adata = AnnData::new(x, DataFrame::new(cells.to_vec()), DataFrame::new(genes.to_vec())).unwrap();
        adata.obs.insert("batch", Column::categorical(&vec![cells[0]; cells.len()])).unwrap();
        adata.var.insert("chromosome", Column::text(genes.iter().map(|gene| format!("of {gene}")))).unwrap();
        adata
    }

    fn two() -> [AnnData; 2] {
        let mut left = part(&["a"], &["x", "y"], &[1.0, 2.0]);
        let mut right = part(&["b", "c"], &["z", "y"], &[3.0, 4.0, 5.0, 6.0]);
        left.obs.insert("depth", vec![1_i64]).unwrap();
        right.obs.insert("depth", vec![2.5_f64, 3.5]).unwrap();
        left.obs.insert("donor", Column::text(["d1"])).unwrap();
        [left, right]
    }

    fn x(adata: &AnnData) -> Vec<f32> {
        adata.matrix(None).unwrap().to_csr().unwrap().to_dense()
    }

    #[test]
    fn an_inner_join_keeps_what_all_have() {
        let all = concat(&two(), Join::Inner).unwrap();
        assert_eq!((all.var_names(), x(&all)), (&["y".to_owned()][..], vec![2.0, 4.0, 6.0]));
        assert_eq!(all.obs.column_names(), ["batch", "depth"]);
        assert_eq!(all.obs.column("depth").unwrap().to_f64().unwrap(), [1.0, 2.5, 3.5]);
        assert_eq!(all.obs.column("batch").unwrap().to_strings()[2].as_deref(), Some("b"));
        assert_eq!(all.var.column("chromosome").unwrap().to_strings(), [Some("of y".to_owned())]);
    }

    #[test]
    fn an_outer_join_fills_with_zeros_and_missing_annotations() {
        let all = concat(&two(), Join::Outer).unwrap();
        assert_eq!(all.var_names(), ["x", "y", "z"]);
        assert_eq!(x(&all), [1.0, 2.0, 0.0, 0.0, 4.0, 3.0, 0.0, 6.0, 5.0]);
        assert_eq!(all.obs.column("donor").unwrap().to_strings(), [Some("d1".to_owned()), None, None]);
    }

    #[test]
    fn embeddings_of_one_width_are_stacked_and_others_left_out() {
        let [mut left, mut right] = two();
        for (name, width) in [("X_pca", 2), ("X_umap", 1)] {
            left.obsm.insert(name.into(), Array::matrix(1, 2, vec![1.0_f32; 2]).unwrap().into());
            right.obsm.insert(name.into(), Array::matrix(2, width, vec![2.0_f32; 2 * width]).unwrap().into());
        }
        let all = concat(&[left, right], Join::Inner).unwrap();
        assert_eq!(all.obsm.keys().collect::<Vec<_>>(), ["X_pca"]);
        assert_eq!(all.obsm["X_pca"].to_table("X_pca").unwrap().values, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn repeated_names_are_refused() {
        let [left, _] = two();
        let twice = [left.clone(), left.clone()];
        assert!(matches!(concat(&twice, Join::Inner), Err(Error::DuplicateCells { n_duplicated: 1, .. })));
        let repeated = part(&["b"], &["x", "x"], &[1.0, 2.0]);
        assert!(matches!(concat(&[left.clone(), repeated], Join::Inner), Err(Error::DuplicateGenes { .. })));
        let foreign = part(&["b"], &["q"], &[1.0]);
        assert!(matches!(concat(&[left, foreign], Join::Inner), Err(Error::NoCommonGenes { .. })));
        assert!(matches!(concat(&[], Join::Outer), Err(Error::NoCells)));
    }
}

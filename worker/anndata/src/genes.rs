//! Genes under other names: identifiers mapped by a table, genes that end up under one name merged.

use std::collections::HashMap;

use crate::{AnnData, Csr, Error, Matrix, Result, align::Duplicates};

/// Where each gene goes when genes get other names: dropped, renamed, or merged with others of its new name.
#[derive(Debug, Clone, PartialEq)]
pub struct Renaming {
    /// The first gene of each new name, in order.
    first: Vec<usize>,
    /// New position of each gene.
    targets: Vec<Option<u32>>,
    names: Vec<String>,
    /// Whether genes are merged.
    merges: bool,
}

impl Renaming {
    /// Gene `j` shall be called `names[j]`, and be left out where that is `None`.
    ///
    /// # Errors
    /// [`Error::DuplicateGenes`] when genes would have to be merged and `duplicates` refuses it, [`Error::NoGenes`] when no
    /// gene is left.
    pub fn new(names: &[Option<String>], duplicates: Duplicates) -> Result<Self> {
        let mut position: HashMap<&str, usize> = HashMap::new();
        let (mut first, mut n_genes) = (Vec::new(), Vec::new());
        let mut targets = Vec::with_capacity(names.len());
        for (gene, name) in names.iter().enumerate() {
            let target = name.as_deref().map(|name| {
                *position.entry(name).or_insert_with(|| {
                    first.push(gene);
                    n_genes.push(0_usize);
                    first.len() - 1
                })
            });
            if let Some(target) = target {
                n_genes[target] += 1;
            }
            targets.push(target.map(|target| target as u32));
        }
        if first.is_empty() {
            return Err(Error::NoGenes);
        }
        let kept: Vec<String> = first.iter().filter_map(|&gene| names[gene].clone()).collect();
        let repeated: Vec<&String> = kept.iter().zip(&n_genes).filter(|(_, n)| **n > 1).map(|(name, _)| name).collect();
        if duplicates == Duplicates::Refuse && !repeated.is_empty() {
            let examples = repeated.iter().take(N_EXAMPLES).map(|name| (*name).clone()).collect();
            return Err(Error::DuplicateGenes { of: "the file", n_duplicated: repeated.len(), examples });
        }
        let merges = !repeated.is_empty();
        Ok(Self { first, targets, names: kept, merges })
    }

    /// The new names, in the order of the genes that had them first.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Cells × genes as they were to cells × genes as they are called now; merged ones are added up.
    ///
    /// # Errors
    /// When `counts` has not one column per gene.
    pub fn apply(&self, counts: &Csr) -> Result<Csr> {
        counts.map_cols(&self.targets, self.names.len())
    }
}

impl AnnData {
    /// The same cells with their genes renamed. A merged gene stands where the first of its genes stood, with the
    /// annotations of that one; `X` and every layer are added up. `raw` keeps its own genes, and pairs of genes (`varp`) are
    /// dropped when genes are merged.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is not one name per gene, and those of [`Renaming::new`].
    pub fn with_gene_names(&self, names: &[Option<String>], duplicates: Duplicates) -> Result<Self> {
        if names.len() != self.n_vars() {
            let (found, expected) = (names.len(), self.n_vars());
            return Err(Error::Shape { part: "gene names".into(), axis: "genes", found, expected, against: "var" });
        }
        let renaming = Renaming::new(names, duplicates)?;
        let mut renamed = self.select_vars(&renaming.first)?;
        renamed.var.rename_rows(renaming.names.clone())?;
        if renaming.merges {
            let merge = |matrix: &Matrix| Ok::<_, Error>(renaming.apply(&matrix.to_csr()?)?.into());
            renamed.x = self.x.as_ref().map(merge).transpose()?;
            for (name, layer) in &self.layers {
                renamed.layers.insert(name.clone(), merge(layer)?);
            }
            renamed.varp.clear();
        }
        Ok(renamed)
    }
}

/// Names shown in an error.
const N_EXAMPLES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataFrame;

    fn renamed(names: &[Option<&str>], duplicates: Duplicates) -> Result<AnnData> {
        let x = Csr::from_dense(2, 3, &[1.0, 0.0, 2.0, 0.0, 3.0, 4.0]).unwrap();
        let mut adata =
            AnnData::new(x.clone(), DataFrame::new(["a", "b"]), DataFrame::new(["E1", "E2", "E3"])).unwrap();
        adata.layers.insert("counts".into(), x.into());
        adata.var.insert("chromosome", crate::Column::text(["1", "2", "3"])).unwrap();
        let names: Vec<Option<String>> = names.iter().map(|name| name.map(str::to_owned)).collect();
        adata.with_gene_names(&names, duplicates)
    }

    fn x(adata: &AnnData) -> Vec<f32> {
        adata.matrix(None).unwrap().to_csr().unwrap().to_dense()
    }

    #[test]
    fn genes_of_one_name_are_added_up_where_the_first_stood() {
        let adata = renamed(&[Some("LYZ"), Some("CD3D"), Some("LYZ")], Duplicates::Sum).unwrap();
        assert_eq!(adata.var_names(), ["LYZ", "CD3D"]);
        assert_eq!(x(&adata), [3.0, 0.0, 4.0, 3.0]);
        assert_eq!(adata.layers["counts"].to_csr().unwrap().to_dense(), [3.0, 0.0, 4.0, 3.0]);
        assert_eq!(adata.var.column("chromosome").unwrap().to_strings(), [Some("1".into()), Some("2".into())]);
        let refused = renamed(&[Some("LYZ"), Some("CD3D"), Some("LYZ")], Duplicates::Refuse);
        assert!(matches!(refused, Err(Error::DuplicateGenes { n_duplicated: 1, .. })));
    }

    #[test]
    fn genes_without_a_name_are_dropped_and_none_left_is_an_error() {
        let adata = renamed(&[None, Some("CD3D"), Some("MS4A1")], Duplicates::Refuse).unwrap();
        assert_eq!(
            (adata.var_names(), x(&adata)),
            (&["CD3D".to_owned(), "MS4A1".into()][..], vec![0.0, 2.0, 3.0, 4.0])
        );
        assert!(matches!(renamed(&[None, None, None], Duplicates::Sum), Err(Error::NoGenes)));
        assert!(matches!(renamed(&[None], Duplicates::Sum), Err(Error::Shape { .. })));
    }
}

"""Opens what the Rust side wrote, compares it value by value, uses it, and writes it back.

Arguments: the file to check, the file to write.
"""

import sys

import anndata
import numpy as np
import pandas as pd
import scanpy as sc

written, rewritten = sys.argv[1:]
adata = anndata.read_h5ad(written)

assert adata.shape == (3, 4), adata.shape
assert list(adata.obs_names) == ["cell-1", "cell-2", "Zelle-ß"], adata.obs_names
assert adata.obs.index.name == "barcode"
assert list(adata.var_names) == ["CD3D", "MS4A1", "LYZ", "HLA-DRA"]

x = np.array([[1, 0, 2, 0], [0, 0, 0, 3], [4, 5, 0, 0]])
assert adata.X.format == "csr" and adata.X.dtype == np.float32
np.testing.assert_array_equal(adata.X.toarray(), x)
by_columns = adata.layers["by_columns"]
assert by_columns.format == "csc" and by_columns.dtype == np.int32
np.testing.assert_array_equal(by_columns.toarray(), [[7, 0, 9, 0], [0, 0, 0, 0], [0, 8, 0, 0]])
assert adata.layers["dense"].dtype == np.uint16
np.testing.assert_array_equal(adata.layers["dense"], np.arange(12).reshape(3, 4))

obs = adata.obs
assert list(obs.columns) == [
    "batch", "stage", "plate", "note", "is_doublet", "n_counts", "n_genes", "percent_mito", "age", "smoker", "site",
], list(obs.columns)
assert list(obs["batch"]) == ["a", "b", "a"] and list(obs["batch"].cat.categories) == ["a", "b"]
assert obs["stage"].cat.ordered and list(obs["stage"].cat.codes) == [1, -1, 0]
assert list(obs["plate"]) == [10, 20, 20]
assert list(obs["note"].astype(str)) == ["", "ü", "x/y"]
assert obs["is_doublet"].dtype == bool and list(obs["is_doublet"]) == [True, False, True]
assert obs["n_counts"].dtype == np.int64 and obs["n_genes"].dtype == np.uint32
assert obs["percent_mito"].dtype == np.float32 and np.isinf(obs["percent_mito"].iloc[1])
assert str(obs["age"].dtype) == "Int64" and obs["age"].isna().tolist() == [False, True, False]
assert str(obs["smoker"].dtype) == "boolean" and obs["smoker"].isna().tolist() == [True, False, False]
assert obs["site"].isna().tolist() == [False, True, False] and obs["site"].iloc[2] == "Köln"

np.testing.assert_array_equal(adata.obsm["X_latent"], np.array([[0.5, -1], [2, 3.5], [0, 1]], dtype=np.float32))
proteins = adata.obsm["protein_expression"]
assert isinstance(proteins, pd.DataFrame) and list(proteins["CD45RA"]) == [1, 5, 2]
assert adata.varm["mask"].dtype == bool
assert adata.obsp["distances"].toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
assert adata.varp["correlation"].shape == (4, 4)
assert adata.raw.shape == (3, 5) and adata.raw.varm["PCs"].shape == (5, 2)

uns = adata.uns
assert uns["nested"]["title"] == "a study" and uns["nested"]["n_neighbors"] == 15
assert uns["nested"]["resolution"] == 0.8 and uns["nested"]["nothing"] is None and uns["nested"]["empty"] == {}
assert list(uns["colors"]) == ["#ff0000", "#00ff00"] and bool(uns["log1p"]) is True
assert uns["graph"].toarray().tolist() == [[0, 1], [1, 0]]
assert list(uns["table"]["highly_variable"]) == [True, True, False, True]
assert list(uns["rank_genes_groups"]["names"]) == ["CD3D", "LYZ"]
assert list(uns["rank_genes_groups"]["scores"]) == [2.5, -1.0]
assert list(uns["kinds"]) == ["x", "y", "x"]

anndata.settings.allow_write_nullable_strings = True
adata.write_h5ad(rewritten, compression="gzip")

sc.pp.normalize_total(adata, target_sum=1e4)
sc.pp.log1p(adata)
sc.pp.pca(adata, n_comps=2)
sc.pp.neighbors(adata, n_neighbors=2, use_rep="X_pca")
assert "connectivities" in adata.obsp
print("equal")

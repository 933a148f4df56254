"""Saved models go through our import and export and mean the same to scvi-tools afterwards.

For each model: train a small one with scvi-tools, save it, read and write it with `reexport`, load the result with
scvi-tools, and compare latent means and decoded expression of the same cells; then map a new batch onto it with scvi-tools' own surgery.

    cargo build --release -p archipelago-models --example reexport
    python benches/peers/roundtrip.py --reexport <path of the example>

Needs scvi-tools 1.4 (`pip install scvi-tools`). Prints one line per model and exits with 1 if any differs.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import warnings

import anndata
import numpy as np
import pandas as pd
import scvi
import torch

N_CELLS, N_GENES, N_PROTEINS = 120, 40, 6
TOLERANCE = 1e-5
SURGERY = {"n_layers": 2, "encode_covariates": True, "deeply_inject_covariates": False,
           "use_layer_norm": "both", "use_batch_norm": "none"}


def cells(batches, seed):
    """Counts with a batch, a label and proteins."""
    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(rng.negative_binomial(2, 0.3, (N_CELLS, N_GENES)).astype(np.float32))
    adata.var_names = [f"gene{i:03}" for i in range(N_GENES)]
    adata.obs["batch"] = pd.Categorical(rng.choice(batches, N_CELLS))
    adata.obs["lane"] = np.where(adata.obs["batch"] == batches[0], 1, 2)
    adata.obs["label"] = pd.Categorical(rng.choice(["B", "T", "unknown"], N_CELLS))
    adata.obs["donor_age"] = rng.normal(size=N_CELLS)
    adata.obs["chemistry"] = pd.Categorical(rng.choice(["v2", "v3"], N_CELLS))
    adata.obsm["protein"] = rng.poisson(5, (N_CELLS, N_PROTEINS)).astype(np.float32)
    return adata


def models():
    """Name, class, set-up, constructor options."""
    scvi_setup = {"batch_key": "batch"}
    yield "scVI for surgery", scvi.model.SCVI, scvi_setup, {**SURGERY, "gene_likelihood": "nb"}
    yield "scVI, defaults", scvi.model.SCVI, scvi_setup, {}
    yield "scVI, deep injection", scvi.model.SCVI, scvi_setup, {**SURGERY, "deeply_inject_covariates": True}
    yield "scVI, latent library", scvi.model.SCVI, scvi_setup, {**SURGERY, "use_observed_lib_size": False}
    yield "scVI, dispersion per batch", scvi.model.SCVI, scvi_setup, {**SURGERY, "dispersion": "gene-batch"}
    yield "scVI, no batch", scvi.model.SCVI, {}, SURGERY
    yield "scVI, numbered batches", scvi.model.SCVI, {"batch_key": "lane"}, SURGERY
    covariates = {**scvi_setup, "categorical_covariate_keys": ["chemistry"], "continuous_covariate_keys": ["donor_age"]}
    yield "scVI, covariates", scvi.model.SCVI, covariates, SURGERY
    labels = {**scvi_setup, "labels_key": "label", "unlabeled_category": "unknown"}
    yield "scANVI", scvi.model.SCANVI, labels, SURGERY
    proteins = {**scvi_setup, "protein_expression_obsm_key": "protein"}
    yield "totalVI", scvi.model.TOTALVI, proteins, {"use_layer_norm": "both", "use_batch_norm": "none"}


def results(model):
    """Latent means, and expression decoded with the same noise."""
    scvi.settings.seed = 1
    expression = model.get_normalized_expression()
    decoded = expression if isinstance(expression, tuple) else (expression,)
    return [model.get_latent_representation(), *(np.asarray(frame) for frame in decoded)]


def difference(cls, setup, options, reexport, folder):
    """Largest difference of results before and after, relative where they are above 1."""
    adata = cells(["b0", "b1", "b2"], seed=0)
    cls.setup_anndata(adata, **setup)
    model = cls(adata, **options)
    model.train(max_epochs=2, accelerator="cpu")
    model.save(str(folder / "saved"), overwrite=True)
    subprocess.run([reexport, folder / "saved", folder / "again"], check=True)
    torch.load(folder / "again" / "model.pt", weights_only=True)
    again = cls.load(str(folder / "again"), adata=adata, accelerator="cpu")
    pairs = zip(results(again), results(model), strict=True)
    gap = max((np.abs(a - b) / np.maximum(np.abs(b), 1)).max() for a, b in pairs)

    query = cells(["q0", "q1"], seed=1)
    mapped = cls.load_query_data(query, str(folder / "again"), accelerator="cpu")
    mapped.train(max_epochs=1, accelerator="cpu", plan_kwargs={"weight_decay": 0.0})
    assert np.isfinite(mapped.get_latent_representation()).all()
    return gap


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--reexport", required=True, help="the example program `reexport`")
    reexport = str(pathlib.Path(parser.parse_args().reexport).resolve())
    warnings.filterwarnings("ignore")
    scvi.settings.seed = 0
    failed = 0
    for name, cls, setup, options in models():
        with tempfile.TemporaryDirectory() as folder:
            gap = difference(cls, setup, options, reexport, pathlib.Path(folder))
        failed += gap > TOLERANCE
        print(f"{name:28} results differ by {gap:.1e}  {'ok' if gap <= TOLERANCE else 'DIFFERENT'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

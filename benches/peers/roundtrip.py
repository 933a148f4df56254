"""Models of scvi-tools through a reference and back: train with scvi-tools, import, ask our own commands, export, load with
scvi-tools, and compare all three on the same cells; then map a new batch onto the export with scvi-tools' own surgery.

    make peers

or, with an environment of one's own (scvi-tools 1.4):

    python benches/peers/roundtrip.py --worker target/release/archipelago-worker

Prints one line per model and exits with 1 if any differs. A model that cannot be a reference here is named and left out.
"""

import argparse
import pathlib
import sys
import tempfile
import warnings

import anndata
import numpy as np
import pandas as pd
import scvi
import torch

from ours import TOLERANCE, must, run, table

N_CELLS, N_GENES, N_PROTEINS = 120, 40, 6
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
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
    adata.obs["tissue"] = pd.Categorical(rng.choice(["gut", "lung", "skin"], N_CELLS))
    adata.obsm["protein"] = rng.poisson(5, (N_CELLS, N_PROTEINS)).astype(np.float32)
    names = [f"CD{i}" for i in range(N_PROTEINS)]
    some = pd.DataFrame(adata.obsm["protein"].copy(), index=adata.obs_names, columns=names)
    some.loc[(adata.obs["batch"] == batches[0]).to_numpy(), "CD3"] = 0
    adata.obsm["protein_some"] = some
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
    # Registered in another than name order, which is ours.
    covariates = {**scvi_setup, "categorical_covariate_keys": ["tissue", "chemistry"],
                  "continuous_covariate_keys": ["donor_age"]}
    yield "scVI, covariates", scvi.model.SCVI, covariates, SURGERY
    labels = {**scvi_setup, "labels_key": "label", "unlabeled_category": "unknown"}
    yield "scANVI", scvi.model.SCANVI, labels, SURGERY
    yield "scANVI, defaults", scvi.model.SCANVI, labels, {}
    yield "scANVI, linear classifier", scvi.model.SCANVI, labels, {**SURGERY, "linear_classifier": True}
    labels = {**labels, **covariates}
    yield "scANVI, covariates", scvi.model.SCANVI, labels, SURGERY
    proteins = {**scvi_setup, "protein_expression_obsm_key": "protein"}
    yield "totalVI for surgery", scvi.model.TOTALVI, proteins, {"use_layer_norm": "both", "use_batch_norm": "none"}
    yield "totalVI, defaults", scvi.model.TOTALVI, proteins, {}
    per_batch = {"gene_likelihood": "zinb", "gene_dispersion": "gene-batch", "protein_dispersion": "protein-batch"}
    yield "totalVI, dispersion per batch", scvi.model.TOTALVI, proteins, per_batch
    yield "totalVI, latent library", scvi.model.TOTALVI, proteins, {"use_observed_lib_size": False}
    missing = {**proteins, "protein_expression_obsm_key": "protein_some"}
    yield "totalVI, missing proteins", scvi.model.TOTALVI, missing, {"empirical_protein_background_prior": True}
    no_batch = {"protein_expression_obsm_key": "protein"}
    yield "totalVI, no batch", scvi.model.TOTALVI, no_batch, {}


def results(model):
    """Latent means, labels where there are some, and expression decoded with the same noise."""
    scvi.settings.seed = 1
    expression = model.get_normalized_expression()
    decoded = expression if isinstance(expression, tuple) else (expression,)
    labels = [np.asarray(model.predict(soft=True))] if hasattr(model, "predict") else []
    return [model.get_latent_representation(), *labels, *(np.asarray(frame) for frame in decoded)]


def ours(worker, adata, model, setup, folder):
    """Largest difference of what our commands say about the cells from what scvi-tools says."""
    known = adata.copy()
    batch_key = setup.get("batch_key", "everything")
    if batch_key == "everything":
        known.obs["everything"] = "0"
    cells = [folder / "reference", folder / "cells.h5ad", "--batch-key", batch_key, "--device", "cpu"]
    if "protein_expression_obsm_key" in setup:
        # An array has no names; scvi-tools numbers its columns.
        known.uns["proteins"] = list(map(str, model.protein_state_registry.column_names))
        cells += ["--protein-obsm-key", setup["protein_expression_obsm_key"], "--protein-names-uns-key", "proteins"]
    known.write_h5ad(folder / "cells.h5ad")
    must(worker, "latent", *cells, "--out", folder / "latent.csv")
    gap = np.abs(table(folder / "latent.csv", "mean_") - model.get_latent_representation()).max()
    if hasattr(model, "predict"):
        must(worker, "predict", *cells, "--soft", "--out", folder / "predicted.csv")
        theirs = model.predict(soft=True)
        for label in theirs.columns:
            gap = max(gap, np.abs(table(folder / "predicted.csv", label)[:, 0] - theirs[label].to_numpy()).max())
    return gap


def difference(cls, setup, options, worker, folder):
    """Largest differences of our results and of those after the round trip, relative where they are above 1; or why the
    model cannot be a reference."""
    adata = cells(["b0", "b1", "b2"], seed=0)
    cls.setup_anndata(adata, **setup)
    model = cls(adata, **options)
    model.train(max_epochs=2, **QUIET)
    model.save(str(folder / "saved"), overwrite=True)
    refused = run(worker, "import", folder / "saved", "--out", folder / "reference")
    if refused is not None:
        return refused
    must(worker, "export", folder / "reference", "--out", folder / "again")
    torch.load(folder / "again" / "model.pt", weights_only=True)
    again = cls.load(str(folder / "again"), adata=adata, accelerator="cpu")
    pairs = zip(results(again), results(model), strict=True)
    gap = max((np.abs(a - b) / np.maximum(np.abs(b), 1)).max() for a, b in pairs)

    query = cells(["q0", "q1"], seed=1)
    if hasattr(model, "predict"):
        query.obs["label"] = "unknown"
    mapped = cls.load_query_data(query, str(folder / "again"), accelerator="cpu")
    mapped.train(max_epochs=1, plan_kwargs={"weight_decay": 0.0}, **QUIET)
    assert np.isfinite(mapped.get_latent_representation()).all()
    return gap, ours(worker, adata, model, setup, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--worker", required=True, help="the program `archipelago-worker`")
    worker = str(pathlib.Path(parser.parse_args().worker).resolve())
    warnings.filterwarnings("ignore")
    scvi.settings.seed = 0
    failed = 0
    for name, cls, setup, options in models():
        with tempfile.TemporaryDirectory() as folder:
            gaps = difference(cls, setup, options, worker, pathlib.Path(folder))
        if isinstance(gaps, str):
            print(f"{name:28} left out: {gaps.strip().splitlines()[0]}", flush=True)
            continue
        is_same = max(gaps) <= TOLERANCE
        failed += not is_same
        verdict = "ok" if is_same else "DIFFERENT"
        print(f"{name:28} round trip {gaps[0]:.1e}, our own results {gaps[1]:.1e}  {verdict}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

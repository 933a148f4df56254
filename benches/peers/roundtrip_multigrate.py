"""Multigrate 1.0.1 through a reference and back, before and after surgery, and cells of several modalities between both:

1. trained and saved by Multigrate, imported: our latent means are Multigrate's;
2. exported again, loaded by Multigrate: its latent means are what they were;
3. mapped by Multigrate onto our export, saved, imported: our latent means of the query are Multigrate's;
4. mapped by us, exported, loaded by Multigrate: its latent means of reference and query are ours;
5. `organize` lays modalities together as `organize_multimodal_anndatas` does, and mudata opens its h5mu.

    make peers

or, with an environment of one's own (multigrate 1.0.1, mudata):

    python benches/peers/roundtrip_multigrate.py --worker target/release/archipelago-worker

Prints one line per model and exits with 1 if any differs.
"""

import argparse
import contextlib
import io
import logging
import pathlib
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
import torch
from multigrate.data import organize_multimodal_anndatas
from multigrate.model import MultiVAE

from ours import TOLERANCE, must, table

N_CELLS, N_GENES, N_PROTEINS = 96, 30, 6
KEYS = ["chemistry", "donor"]
OWNER = ["--owner", "reference", "--dataset", "atlas"]
TRAIN = {"max_epochs": 2, "batch_size": 32, "accelerator": "cpu", "enable_progress_bar": False}


def modalities(donors, chemistry, seed):
    """Genes and proteins of the same cells; the last donor has no proteins."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame({"donor": rng.permutation(np.resize(donors, N_CELLS)).astype(str)}, index=[f"c{seed}-{i}" for i in range(N_CELLS)])
    obs["chemistry"] = chemistry
    rna = anndata.AnnData(rng.poisson(2, (N_CELLS, N_GENES)).astype(np.float32), obs=obs.copy())
    rna.var_names = [f"gene{i}" for i in range(N_GENES)]
    proteins = anndata.AnnData(rng.gamma(2, 1, (N_CELLS, N_PROTEINS)).astype(np.float32), obs=obs.copy())
    proteins.var_names = [f"protein{i}" for i in range(N_PROTEINS)]
    proteins.X[obs["donor"] == donors[-1]] = 0
    return rna, proteins


def together(rna, proteins):
    """Upstream's layout; what `organize_multimodal_anndatas` gives of one data set."""
    return organize_multimodal_anndatas([[rna.copy()], [proteins.copy()]])


def write(path, rna, proteins):
    """Ours: proteins are a table of obsm."""
    ours = rna.copy()
    ours.obsm["proteins"] = pd.DataFrame(proteins.X, index=rna.obs_names, columns=proteins.var_names)
    ours.write_h5ad(path)


def setup(adata):
    MultiVAE.setup_anndata(adata, categorical_covariate_keys=KEYS, rna_indices_end=N_GENES)


def load(folder, cells):
    """A saved model with these cells."""
    return MultiVAE.load(str(folder), together(*cells), accelerator="cpu")


def ask(model, adata):
    """Means of the joint latent state."""
    adata = model._validate_anndata(adata)
    means = []
    model.module.eval()
    with torch.inference_mode():
        for tensors in model._make_data_loader(adata=adata, batch_size=32):
            means.append(model.module.inference(**model.module._get_inference_input(tensors))["mu"])
    return torch.cat(means).numpy()


def ours(worker, reference, cells, *more):
    """Latent means by our command."""
    out = reference.with_name(f"{reference.name}-{cells.stem}.csv")
    place = ["--field", "modality_1=obsm/proteins"]
    must(worker, "latent", reference, cells, *OWNER, *place, "--device", "cpu", "--out", out, *more)
    return table(out, "mean_")


def gap(a, b):
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    return float((np.abs(a - b) / np.maximum(np.abs(b), 1)).max())


def differences(worker, folder, options):
    """The largest difference of each of the four ways."""
    known, query = modalities(["d0", "d1", "d2"], "v2", 0), modalities(["q0", "q1"], "v3", 1)
    files = [folder / "cells.h5ad", folder / "query.h5ad"]
    for file, cells in zip(files, [known, query]):
        write(file, *cells)

    adata = together(*known)
    setup(adata)
    model = MultiVAE(adata, z_dim=4, cond_dim=3, losses=["nb", "mse"], **options)
    model.train(**TRAIN)
    model.save(str(folder / "saved"), overwrite=True)
    theirs = ask(model, adata)
    must(worker, "import", folder / "saved", "--out", folder / "reference")
    gaps = [gap(ours(worker, folder / "reference", files[0]), theirs)]

    must(worker, "export", folder / "reference", "--out", folder / "again")
    loaded = load(folder / "again", known)
    gaps.append(gap(ask(loaded, loaded.adata), theirs))

    new = together(*query)
    grown = MultiVAE.load_query_data(new, loaded, accelerator="cpu")
    grown.train(**TRAIN, weight_decay=0)
    grown.save(str(folder / "grown"), overwrite=True)
    must(worker, "import", folder / "grown", "--out", folder / "grown-reference")
    gaps.append(gap(ours(worker, folder / "grown-reference", files[1]), ask(grown, new)))

    mapping = [*OWNER, "--field", "modality_1=obsm/proteins", "--epochs", 2, "--device", "cpu", "--out", folder / "mapped"]
    must(worker, "map", folder / "reference", files[1], *mapping)
    must(worker, "export", folder / "mapped", "--out", folder / "mapped-saved")
    of_mapped = []
    for file, cells in zip(files, [known, query]):
        loaded = load(folder / "mapped-saved", cells)
        # The reference's cells are known by its owner's keys, and so are the query's, which were mapped under them.
        of_mapped.append(gap(ask(loaded, loaded.adata), ours(worker, folder / "mapped", file)))
    return [*gaps, max(of_mapped)]


def organized(worker, folder):
    """Whether both lay modalities together alike; 0 where they do."""
    rna, proteins = modalities(["d0"], "v2", 2)
    other, _ = modalities(["d1"], "v3", 3)
    rna.write_h5ad(folder / "rna.h5ad")
    other.write_h5ad(folder / "other.h5ad")
    proteins.write_h5ad(folder / "proteins.h5ad")
    blank = anndata.AnnData(np.zeros((N_CELLS, N_PROTEINS), np.float32), obs=other.obs[[]].copy(), var=proteins.var.copy())
    theirs = organize_multimodal_anndatas([[rna, other], [proteins, blank]])
    table_of = [f"rna={folder}/rna.h5ad,{folder}/other.h5ad", f"adt={folder}/proteins.h5ad,none"]
    must(worker, "organize", *table_of, "--out", folder / "all.h5ad")
    must(worker, "organize", *table_of, "--out", folder / "all.h5mu")
    found = anndata.read_h5ad(folder / "all.h5ad")
    dense = lambda x: x.toarray() if hasattr(x, "toarray") else np.asarray(x)
    assert list(found.obs_names) == list(theirs.obs_names) and list(found.var_names) == list(theirs.var_names)
    assert list(found.uns["modality_lengths"]) == list(theirs.uns["modality_lengths"])
    assert found.obs["donor"].astype(str).tolist() == theirs.obs["donor"].astype(str).tolist()
    assert found.obs["group"].astype(int).tolist() == theirs.obs["group"].astype(int).tolist()
    opened = mudata.read_h5mu(folder / "all.h5mu")
    assert opened["rna"].shape == (2 * N_CELLS, N_GENES) and opened["adt"].shape == (2 * N_CELLS, N_PROTEINS)
    return float(np.abs(dense(found.X) - dense(theirs.X)).max())


CASES = {
    "Multigrate": {},
    "Multigrate, mixture": {"mix": "mixture", "normalization": "batch"},
    "Multigrate, encoders alone": {"condition_encoders": False, "activation": "tanh"},
    "Multigrate, integrated": {
        "integrate_on": "donor",
        "modality_alignment": "MMD",
        "alignment_type": "marginal",
        "loss_coefs": {"kl": 0.1, "integ": 3.0},
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--worker", required=True, help="the program `archipelago-worker`")
    parser.add_argument("--only", default="", help="only models whose names begin so")
    arguments = parser.parse_args()
    worker = str(pathlib.Path(arguments.worker).resolve())
    failed = 0
    for name, options in CASES.items():
        if not name.startswith(arguments.only):
            continue
        scvi.settings.seed = 0
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            gaps = differences(worker, pathlib.Path(folder), options)
        is_same = max(gaps) <= TOLERANCE
        failed += not is_same
        ways = ["imported", "exported", "their surgery", "our surgery"]
        shown = ", ".join(f"{way} {found:.1e}" for way, found in zip(ways, gaps))
        print(f"{name:28} {shown}  {'ok' if is_same else 'DIFFERENT'}", flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        found = organized(worker, pathlib.Path(folder))
    failed += found != 0
    print(f"{'organize':28} {found:.1e}  {'ok' if found == 0 else 'DIFFERENT'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""mvTCR's package without what it imports for preprocessing alone, and cells as it reads them."""

import contextlib
import importlib
import io
import logging
import sys
import types
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import numpy as np

for name in ["scirpy", "muon"]:
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)

with contextlib.redirect_stdout(io.StringIO()):
    from mvtcr.models.mixture_modules.moe import MoEModel
    from mvtcr.models.mixture_modules.poe import PoEModel
    from mvtcr.models.mixture_modules.separate_model import SeparateModel

VARIANTS = {"moe": MoEModel, "poe": PoEModel, "concat": SeparateModel}
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TOKENS = {letter: code for code, letter in enumerate("_" + LETTERS + "+<>")}


def prepared(adata, key, batches, length):
    """What mvTCR reads beside the table: tokens and lengths of `obs` columns `alpha` and `beta`, one-hot batches."""
    adata = adata.copy()
    for name in ["alpha", "beta"]:
        texts = [text.ljust(length, "_") for text in adata.obs[name]]
        adata.obsm[f"{name}_seq"] = np.array([[TOKENS[letter] for letter in text] for text in texts])
        adata.obs[f"{name}_len"] = [len(text) for text in adata.obs[name]]
    adata.obsm[f"{key}_ohe"] = np.array([[batch == one for one in batches] for batch in adata.obs[key]]).astype(float)
    adata.uns["aa_to_id"] = TOKENS
    return adata


def silently(call, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return call(*args, **kwargs)

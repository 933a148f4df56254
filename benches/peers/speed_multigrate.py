"""Times Multigrate on the files of one case: training, embedding, surgery. Prints one JSON object.

usage: speed_multigrate.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                           [--model multigrate] [--epochs 3] [--threads 2] [--seed 0]

The second modality is the logarithm of the first 50 genes' counts. Needs multigrate 1.0.1 in a Python 3.12.
"""
import json, logging, sys

from timing import arguments, clock, measure

a = arguments(["multigrate"])
import anndata, numpy as np, scvi, torch
from multigrate.model import MultiVAE

torch.set_num_threads(a.threads)
scvi.settings.verbosity = logging.ERROR
for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(name).setLevel(logging.ERROR)
N_SECOND = 50
TRAIN = dict(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, logger=False,
             train_size=1.0, batch_size=128, max_epochs=a.epochs, early_stopping=False)


class Multigrate:
    def read(self, name):
        """Genes and the second modality side by side."""
        adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
        genes = adata.X.toarray().astype(np.float32)
        both = anndata.AnnData(np.hstack([genes, np.log1p(genes[:, :N_SECOND])]), obs=adata.obs)
        both.uns["modality_lengths"] = [genes.shape[1], N_SECOND]
        # Where it computes them for the reference; cells that come later are to bring theirs.
        both.obs["size_factors"] = genes.sum(1)
        return both

    def build(self, adata):
        MultiVAE.setup_anndata(adata, categorical_covariate_keys=["batch"], rna_indices_end=adata.uns["modality_lengths"][0])
        scvi.settings.seed = a.seed
        return MultiVAE(adata, losses=["nb", "mse"])

    def fit(self, model, **more):
        times = clock()
        model.train(callbacks=[times], **more, **TRAIN)
        return times.epochs

    def embed(self, model, adata):
        model.get_model_output(adata, batch_size=128)

    def before_query(self, model, adata):
        return model

    def map(self, model, query):
        mapped = MultiVAE.load_query_data(query, model, accelerator="cpu")
        return self.fit(mapped, weight_decay=0.0), mapped

    def elbo(self, model, name):
        """Minus reconstruction and divergence per cell, one draw, as ours."""
        scvi.settings.seed = 0
        adata = model._validate_anndata(self.read(name))
        model.module.eval()
        total = 0.0
        with torch.no_grad():
            for tensors in model._make_data_loader(adata=adata, batch_size=128):
                _, _, losses = model.module(tensors, loss_kwargs={"kl_weight": 1.0})
                total += float(sum(losses.reconstruction_loss.values()).sum() + sum(losses.kl_local.values()).sum())
        return -total / adata.n_obs


json.dump({"scvi-tools": scvi.__version__, "torch": torch.__version__, **measure(Multigrate(), a.epochs)}, sys.stdout)

"""Times scvi-tools on the files of one case: training, embedding, surgery. Prints one JSON object.

usage: speed.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                [--model scvi] [--epochs 3] [--threads 2] [--seed 0] [--likelihood nb] [--csr] [--cuda]
"""
import json, logging, sys

from timing import arguments, clock, measure

a = arguments(["scvi", "scanvi"], [
    ("--likelihood", dict(default="nb")),
    ("--csr", dict(action="store_true", help="keep counts as compressed rows: less memory, more time")),
    ("--cuda", dict(action="store_true", help="on the first CUDA device")),
])
import anndata, numpy as np, scvi, torch

torch.set_num_threads(a.threads)
scvi.settings.verbosity = logging.ERROR
for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(name).setLevel(logging.ERROR)
OPTIONS = dict(n_layers=2, n_hidden=128, n_latent=10, gene_likelihood=a.likelihood, use_batch_norm="none",
               use_layer_norm="both", encode_covariates=True, deeply_inject_covariates=False)
ACCELERATOR = "gpu" if a.cuda else "cpu"
TRAIN = dict(accelerator=ACCELERATOR, enable_progress_bar=False, enable_model_summary=False, logger=False,
             train_size=1.0, batch_size=128, max_epochs=a.epochs)


class ScviTools:
    kind = scvi.model.SCVI if a.model == "scvi" else scvi.model.SCANVI

    def read(self, name):
        adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
        adata.X = adata.X.astype(np.float32) if a.csr else adata.X.toarray().astype(np.float32)
        return adata

    def build(self, adata):
        labels = dict(labels_key="cell_type", unlabeled_category="Unknown") if a.model == "scanvi" else {}
        self.kind.setup_anndata(adata, batch_key="batch", **labels)
        scvi.settings.seed = a.seed
        return self.kind(adata, **OPTIONS)

    def fit(self, model, **more):
        times = clock()
        model.train(callbacks=[times], **more, **TRAIN)
        return times.epochs

    def embed(self, model, adata):
        model.get_latent_representation(batch_size=128)

    def before_query(self, model, adata):
        return model

    def map(self, model, query):
        scvi.settings.seed = a.seed
        mapped = self.kind.load_query_data(query, model, accelerator=ACCELERATOR, freeze_dropout=True)
        return self.fit(mapped, plan_kwargs={"weight_decay": 0.0}), mapped

    def elbo(self, model, name):
        """The sign is that of the ELBO in this version; a loss would be positive."""
        scvi.settings.seed = 0
        return float(model.get_elbo(self.read(name), batch_size=128))


json.dump({"scvi-tools": scvi.__version__, "torch": torch.__version__, **measure(ScviTools(), a.epochs)}, sys.stdout)

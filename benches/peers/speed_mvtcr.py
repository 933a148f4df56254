"""Times mvTCR on the files of one case: training, embedding, surgery. Prints one JSON object.

usage: speed_mvtcr.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                      [--model mvtcr] [--epochs 3] [--threads 2] [--seed 0]

The mixture of experts of its tutorial, on log-normalised expression and the receptors in `obs`. Every tenth cell validates, and only the
steps of an epoch are counted. Needs mvtcr 0.2.1.2, as `install_scarches.sh` installs it.
"""
import json, sys, tempfile, time

from timing import arguments, measure

a = arguments(["mvtcr"])
import anndata, numpy as np, torch

from of_mvtcr import VARIANTS, prepared, silently

torch.set_num_threads(a.threads)
LOSS_WEIGHTS, RATE = [1.0, 0.01618, 1.011e-10], 3e-4
REFERENCE, QUERY = ["b0", "b1", "b2"], ["q0"]


def architecture():
    """That of the tutorial, which is our default."""
    joint = dict(activation="leakyrelu", batch_norm=True, dropout=0.05, hdim=100, losses=["MSE", "CE"], num_layers=2,
                 shared_hidden=[100, 100], zdim=50, c_embedding_dim=20)
    rna = dict(activation="leakyrelu", batch_norm=True, dropout=0.05, gene_hidden=[500] * 3, num_layers=3, output_activation="linear")
    tcr = dict(embedding_size=64, num_heads=4, forward_expansion=4, encoding_layers=1, decoding_layers=1, dropout=0.25)
    return dict(batch_size=512, learning_rate=RATE, loss_weights=LOSS_WEIGHTS, joint=joint, rna=rna, tcr=tcr)


class Mvtcr:
    length = None

    def read(self, name, batches=REFERENCE):
        adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
        counts = adata.X.toarray()
        adata.X = np.log1p(counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4).astype(np.float32)
        adata.obs["batch"] = adata.obs["batch"].astype(str)
        adata.obs["clonotype"] = adata.obs["alpha"].astype(str) + adata.obs["beta"].astype(str)
        adata.obs["set"] = np.where(np.arange(adata.n_obs) % 10 == 9, "val", "train")
        self.length = self.length or max(adata.obs[name].str.len().max() for name in ["alpha", "beta"])
        return prepared(adata, "batch", batches, self.length)

    def build(self, adata):
        torch.manual_seed(a.seed)
        np.random.seed(a.seed)
        return VARIANTS["moe"](adata, architecture(), "clonotype", [], "batch_ohe", None, None, torch.device("cpu"))

    def fit(self, model):
        epochs, run_epoch = [], model.run_epoch

        def timed(epoch, phase="train"):
            start = time.perf_counter()
            given = run_epoch(epoch, phase)
            if phase == "train":
                epochs.append(time.perf_counter() - start)
            return given

        model.run_epoch = timed
        with tempfile.TemporaryDirectory() as folder:
            silently(model.train, a.epochs, 512, RATE, LOSS_WEIGHTS, 1, None, folder, None)
        del model.run_epoch
        return epochs

    def embed(self, model, adata):
        silently(model.get_latent, adata, metadata=[], return_mean=True)

    def before_query(self, model, adata):
        return model

    def map(self, model, query):
        del query
        model.add_new_embeddings(len(QUERY))
        model.freeze_all_weights_except_cond_embeddings()
        model.change_adata(self.read("query", REFERENCE + QUERY))
        return self.fit(model), None

    def elbo(self, model, name):
        """Its loss is no bound of a likelihood of one kind: none is compared."""
        return None


json.dump({"mvtcr": "0.2.1.2", "torch": torch.__version__, **measure(Mvtcr(), a.epochs)}, sys.stdout)

"""Times scArches' native models on the files of one case: training, embedding, mapping. Prints one JSON object.

usage: speed_native.py <folder with reference.h5ad, reference_validation.h5ad, query.h5ad, query_validation.h5ad>
                       [--model trvae|scgen|expimap|scpoli] [--epochs 3] [--threads 2] [--seed 0]

Needs scArches 0.6.1 in a Python 3.11 of its own: it does not work with current releases of what it is built on.
"""
import contextlib, importlib, io, json, logging, sys, time

from timing import arguments, measure, passes, quietly

a = arguments(["trvae", "scgen", "expimap", "scpoli"])
logging.disable(logging.WARNING)
import anndata, numpy as np, torch

with contextlib.redirect_stdout(io.StringIO()):
    import scarches
    from scarches.models import EXPIMAP, TRVAE, scPoli, scgen

torch.set_num_threads(a.threads)
epochs = []


def timed_epochs(trainer, last_of_epoch=None):
    """Notes how long each epoch of a trainer takes; what it does from there to its method `last_of_epoch` is not counted."""
    on_epoch_end = trainer.on_epoch_end

    def timed(self, *args, **kwargs):
        now = time.perf_counter()
        epochs.append(now - timed_epochs.last)
        timed_epochs.last = now
        return on_epoch_end(self, *args, **kwargs)

    def not_timed(self, *args, **kwargs):
        given = last(self, *args, **kwargs)
        timed_epochs.last = time.perf_counter()
        return given

    trainer.on_epoch_end = timed
    if last_of_epoch:
        last = getattr(trainer, last_of_epoch)
        setattr(trainer, last_of_epoch, not_timed)


def read(name):
    adata = anndata.read_h5ad(f"{a.folder}/{name}.h5ad")
    adata.X = adata.X.toarray().astype(np.float32)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    return adata


def train(model, **more):
    epochs.clear()
    timed_epochs.last = time.perf_counter()
    quietly(model.train, n_epochs=a.epochs, monitor=False, seed=a.seed, **more)
    return list(epochs)


class Conditional:
    """A model that trains on conditions of a reference, and on the new ones of a query."""
    options = dict(use_early_stopping=False, train_frac=1.0)
    of_reference, of_query = {}, dict(weight_decay=0)

    read = staticmethod(read)

    def fit(self, model):
        return train(model, **self.options, **self.of_reference)

    def embed(self, model, adata):
        return model.get_latent(adata.X, adata.obs["batch"].values, mean=True)

    def before_query(self, model, adata):
        """What the mapping takes of the reference."""
        return model

    def map(self, model, query):
        mapped = quietly(self.kind.load_query_data, query, model, **self.load)
        return train(mapped, **self.options, **self.of_query), mapped

    load = {}

    def forward(self, net, x, names):
        """Reconstruction and divergence of some cells, means."""
        batch = torch.tensor([net.condition_encoder[v] for v in names])
        return net(x=x, batch=batch, sizefactor=x.sum(1))[:2]

    def elbo(self, model, name):
        """Minus reconstruction and divergence per cell, one draw, as ours."""
        torch.manual_seed(0)
        adata = self.read(name)
        net, total = model.model.eval(), 0.0
        for s in range(0, adata.n_obs, 512):
            x = torch.tensor(adata.X[s:s + 512])
            with torch.no_grad():
                recon, kl = self.forward(net, x, adata.obs["batch"].values[s:s + 512])
            total += len(x) * (float(recon) + float(kl))
        return -total / adata.n_obs


class Trvae(Conditional):
    kind, trainer = TRVAE, ("trvae.trainer", "Trainer")

    def build(self, adata):
        return TRVAE(adata, condition_key="batch", hidden_layer_sizes=[128, 128])


class Expimap(Conditional):
    """Sets without a meaning, the same as ours: each gene is in two of 200."""
    kind, trainer = EXPIMAP, ("expimap.regularized", "expiMapTrainer")
    of_reference = dict(weight_decay=0, print_stats=False, alpha=0.7, alpha_kl=0.5)
    of_query = dict(weight_decay=0, print_stats=False, alpha_kl=0.5)

    def build(self, adata):
        genes, sets = np.arange(adata.n_vars), np.arange(200)[:, None]
        mask = ((genes % 200 == sets) | ((7 * genes + 3) % 200 == sets)).astype(int).tolist()
        return EXPIMAP(adata, condition_key="batch", hidden_layer_sizes=[256, 256, 256], mask=mask)


class ScPoli(Conditional):
    kind, trainer = scPoli, ("scpoli.trainer", "scPoliTrainer")
    load = dict(labeled_indices=[])

    def build(self, adata):
        return scPoli(adata, condition_keys="batch", embedding_dims=5)

    def embed(self, model, adata):
        return model.get_latent(adata, mean=True)

    def forward(self, net, x, names):
        batch = torch.tensor([net.condition_encoders["batch"][v] for v in names])[:, None]
        joint = torch.tensor([net.conditions_combined_encoder[v] for v in names])
        return net(x=x, batch=batch, combined_batch=joint, sizefactor=x.sum(1))[1:3]


class ScGen:
    """Mapping is arithmetic on the reference's corrected cells; correcting them is not part of its time. Nor is that the trainer looks at
    all cells once more after each epoch, which takes nearly as long as the epoch."""
    trainer = "scgen.trainer", "vaeArithTrainer", "check_early_stop"

    def read(self, name):
        """Cells as scGen takes them, under the names that it asks for."""
        adata = read(name)
        adata.X = np.log1p(adata.X / np.maximum(adata.X.sum(1, keepdims=True), 1) * 1e4).astype(np.float32)
        adata.obs["cell_type"] = adata.obs["every_cell_type"].astype(str)
        adata.obs["study"] = adata.obs["batch"]
        adata.obs_names = [f"{name}-{cell}" for cell in adata.obs_names]
        return adata

    def build(self, adata):
        return scgen(adata, hidden_layer_sizes=[256, 128])

    fit = staticmethod(train)

    def embed(self, model, adata):
        with torch.no_grad():
            return model.get_latent(adata.X)

    def before_query(self, model, adata):
        corrected = quietly(model.batch_removal, adata, batch_key="study", cell_label_key="cell_type", return_latent=True)
        return model, corrected

    def map(self, reference, query):
        model, corrected = reference
        return passes(1, lambda: scgen.map_query_data(corrected, query, model, batch_key="study", return_latent=True))

    def elbo(self, model, name):
        """Its loss is no bound of a likelihood: minus the mean squared error of a draw, as ours. A mapped query is cells, and no model."""
        if not hasattr(model, "model"):
            return None
        torch.manual_seed(0)
        adata = self.read(name)
        net, total = model.model.eval(), 0.0
        for s in range(0, adata.n_obs, 512):
            x = torch.tensor(adata.X[s:s + 512])
            with torch.no_grad():
                total += float(((net(x)[0] - x) ** 2).mean(1).sum())
        return -total / adata.n_obs


def measured(peer):
    """What every peer's script measures, with a watched trainer."""
    module, trainer, *last_of_epoch = peer.trainer
    timed_epochs(getattr(importlib.import_module(f"scarches.trainers.{module}"), trainer), *last_of_epoch)
    torch.manual_seed(a.seed)
    np.random.seed(a.seed)
    return measure(peer, a.epochs)


peers = {"trvae": Trvae, "expimap": Expimap, "scgen": ScGen, "scpoli": ScPoli}
out = {"scarches": scarches.__version__, "torch": torch.__version__, **measured(peers[a.model]())}
json.dump(out, sys.stdout)

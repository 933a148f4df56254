"""What the timing scripts share: their arguments, how long epochs take, how much memory is in use, and what is measured in which order."""

import argparse
import contextlib
import gc
import io
import os
import time
import warnings


def arguments(models, more=()):
    """The case's folder and how to run, threads set before anything that has threads is imported."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--model", default=models[0], choices=models)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    for name, options in more:
        parser.add_argument(name, **options)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    warnings.filterwarnings("ignore")
    return given


def clock():
    """A callback for Lightning that notes the seconds of each epoch of training in `epochs`."""
    import lightning.pytorch as pl

    class Clock(pl.Callback):
        def __init__(self):
            self.epochs = []

        def on_train_epoch_start(self, *_):
            self.start = time.perf_counter()

        def on_train_epoch_end(self, *_):
            self.epochs.append(time.perf_counter() - self.start)

    return Clock()


def quietly(call, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*args, **kwargs)


def passes(n, call):
    """Seconds of each of `n` calls, and what the last one gave."""
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        given = quietly(call)
        seconds.append(time.perf_counter() - start)
    return seconds, given


def reset_peak():
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def peak_mib():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def measure(peer, n_passes):
    """Training, embedding and mapping by a peer, which says how each is done:

    `read` a file of the folder, `build` a model for its cells, `fit` it (seconds of each epoch), `embed` cells, what to take of a reference
    `before_query`, `map` a query (seconds, and the mapped model), and the `elbo` of a file's cells, or None.
    """
    adata = peer.read("reference")
    model = quietly(peer.build, adata)
    trained = {"epochs_s": peer.fit(model), "peak_mib": peak_mib()}
    reset_peak()
    seconds, _ = passes(n_passes, lambda: peer.embed(model, adata))
    latent = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": None}
    trained["elbo"] = peer.elbo(model, "reference_validation")
    reference = peer.before_query(model, adata)
    del adata
    reset_peak()
    seconds, mapped = peer.map(reference, peer.read("query"))
    surgery = {"epochs_s": seconds, "peak_mib": peak_mib(), "elbo": peer.elbo(mapped, "query_validation")}
    return {"train": trained, "latent": latent, "surgery": surgery}

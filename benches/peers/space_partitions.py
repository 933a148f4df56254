#!/usr/bin/env python3
"""The parts and the kept-out cells of SageNet's peer figures, as obs columns of a copy of the file.

    python benches/peers/space_partitions.py spatial_starmap.h5ad parts/spatial_starmap.h5ad
    make quality MODEL=sagenet DATA=parts/spatial_starmap.h5ad PARTS=leiden_0.05,leiden_0.1,leiden_0.5 PEER=BASELINES_external.json

Communities of one run of Leiden are another task for a network than those of the next: on one section of starmap five seeds give
largest parts of 40 to 57 % of the cells, and nobody's accuracy can be compared over them; and a fifth of a section is 225 cells, whose
accuracy has a standard error of 0.03 by itself. Needs scanpy, leidenalg and scikit-learn.
"""
import sys, warnings

warnings.filterwarnings("ignore")
import anndata as ad, numpy as np, scanpy as sc
from sklearn.neighbors import kneighbors_graph

cells = ad.read_h5ad(sys.argv[1])
section = cells.obs["section"].astype(str).values if "section" in cells.obs else np.full(cells.n_obs, "section0")
counted = np.asarray(cells.X.sum(1)).ravel() > 0
for resolution in (0.05, 0.1, 0.5):
    found = np.zeros(cells.n_obs, int)
    for name in sorted(set(section)):
        rows = np.flatnonzero((section == name) & counted)
        one = cells[rows].copy()
        graph = kneighbors_graph(np.asarray(one.obsm["spatial"], float), 6, mode="connectivity").tocsr()
        sc.tl.leiden(one, resolution=resolution, random_state=0, key_added="part", adjacency=graph)
        found[rows] = one.obs["part"].astype(int).values
    cells.obs[f"leiden_{resolution}"] = found
split = cells.obs["split"].astype(str).values if "split" in cells.obs else np.full(cells.n_obs, "reference")
for seed in range(5):
    random, held = np.random.default_rng(seed), np.zeros(cells.n_obs, int)
    for name in sorted(set(section[split == "reference"])):
        rows = np.flatnonzero((section == name) & (split == "reference") & counted)
        n_learnt = int(np.round(.8 * len(rows)))
        held[rows] = random.permutation(np.repeat([0, 1], [n_learnt, len(rows) - n_learnt]))
    cells.obs[f"held_out_{seed}"] = held
cells.write_h5ad(sys.argv[2])

"""Opens an h5mu file of ours with mudata, checks it, and writes it again: `check_mudata.py <ours> <theirs>`."""

import sys

import mudata

mudata.set_options(pull_on_update=False)
read = mudata.read_h5mu(sys.argv[1])
assert list(read.mod) == ["prot", "rna"], list(read.mod)
assert read["rna"].shape == (3, 2) and read["prot"].shape == (2, 2), read
assert list(read["prot"].obs_names) == ["c2", "c1"] and list(read["prot"].var_names) == ["CD3", "CD4"]
assert read["rna"].X.toarray().tolist() == [[1, 0], [0, 2], [3, 4]], read["rna"].X
assert sorted(read.obs_names) == ["c1", "c2", "c3"] and read.n_vars == 4
read.write(sys.argv[2])

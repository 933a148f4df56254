"""Who else's work is in the programs: third-party notices as text, and a CycloneDX bill of materials.

Both are read from `cargo metadata`, the lock file and the sources that cargo has: what is linked into a program on Linux, with features as
they are built, and not what is for tests or other systems. Beside crates there are fonts, HDF5 and libtorch, which no crate's manifest
tells of.
"""

import datetime
import json
import pathlib
import re
import subprocess
import tomllib
import uuid

LICENCE_FILES = re.compile(r"^(licen[cs]e|copying|notice|unlicense|copyright)([-_.].*)?$", re.IGNORECASE)
# Crates whose manifest names a file instead of a licence, and what that is.
UNSTATED = {"hdf5-metno-src": "BSD-3-Clause"}


def crates(root, package, target):
    """The packages that a program is made of, by name and version, and cargo's own words on each."""
    listed = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", target],
        cwd=root, check=True, capture_output=True, text=True).stdout
    known = {(p["name"], p["version"]): p for p in json.loads(listed)["packages"]}
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "--offline", "-p", package, "-e", "normal,build", "--target", target, "--prefix", "none",
         "--format", "{p}"],
        cwd=root, check=True, capture_output=True, text=True).stdout
    named = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    found = sorted((name, version.removeprefix("v")) for name, version in named)
    return [known[of] for of in found if known[of]["source"] is not None]


def licence(crate):
    return crate["license"] or UNSTATED.get(crate["name"]) or "unknown"


def licence_texts(folder):
    """The files of a source folder in which its licence stands."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and LICENCE_FILES.match(path.name)]


def others(root, package, found, libtorch):
    """What is in a program beside crates: name, version, licence, and files with its text."""
    if package != "archipelago-worker":
        return []
    source = next(pathlib.Path(c["manifest_path"]).parent for c in found if c["name"] == "hdf5-metno-src")
    version = (libtorch.parent / "build-version").read_text().strip()
    licences = libtorch.parent / "licenses"
    return [
        ("Inter", "4", "OFL-1.1", [root / "worker/analysis/fonts/OFL.txt"]),
        ("HDF5", "as in hdf5-metno-src", "BSD-3-Clause", [source / "ext/hdf5/LICENSE"]),
        ("libtorch", version, "BSD-3-Clause", sorted(p for p in licences.rglob("*") if p.is_file())),
        ("libgomp (in lib/, from libtorch's distribution)", "", "GPL-3.0-or-later WITH GCC-exception-3.1", []),
        ("CUDA runtime and CUPTI (in lib/, from libtorch's distribution)", "", "NVIDIA CUDA Toolkit EULA, redistributable", []),
    ]


def text(package, found, beside):
    """The notices. A text that several share stands once."""
    lines = [f"{package} contains work of others, under these licences.", ""]
    texts = {}
    rows = [(c["name"], c["version"], licence(c), licence_texts(pathlib.Path(c["manifest_path"]).parent)) for c in found]
    for name, version, terms, files in rows + beside:
        lines.append(f"{name} {version}".rstrip() + f": {terms}")
        for file in files:
            body = file.read_text(errors="replace").strip()
            texts.setdefault(body, []).append(f"{name} {version}".rstrip())
        if not files:
            lines.append("    (its sources come without a text of it)")
    for body, names in texts.items():
        lines += ["", "=" * 100, "Of " + ", ".join(names), "-" * 100, body]
    return "\n".join(lines) + "\n"


def bill(root, package, version, found, beside, epoch):
    """A CycloneDX 1.5 document. Its serial number follows from what is in it."""
    locked = {(p["name"], p["version"]): p for p in tomllib.loads((root / "Cargo.lock").read_text())["package"]}
    components = []
    for crate in found:
        of = (crate["name"], crate["version"])
        purl = f"pkg:cargo/{of[0]}@{of[1]}"
        component = {"type": "library", "bom-ref": purl, "name": of[0], "version": of[1], "purl": purl,
                     "licenses": [{"expression": licence(crate).replace("/", " OR ")}]}
        if checksum := locked.get(of, {}).get("checksum"):
            component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        components.append(component)
    for name, of_version, terms, _ in beside:
        components.append({"type": "library", "name": name, "version": of_version, "licenses": [{"license": {"name": terms}}]})
    stamp = datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    subject = {"type": "application", "name": package, "version": version, "licenses": [{"license": {"id": "Apache-2.0"}}]}
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
                "metadata": {"timestamp": stamp, "component": subject}, "components": components}
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True))
    return json.dumps({"serialNumber": f"urn:uuid:{serial}", **document}, indent=1) + "\n"

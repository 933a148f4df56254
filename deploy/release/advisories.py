#!/usr/bin/env python3
"""Writes tests/advisories.json, the snapshot of the RustSec advisory database that `make test` holds Cargo.lock against.

    git clone --depth 1 https://github.com/RustSec/advisory-db
    deploy/release/advisories.py advisory-db

Facts alone: which versions of which crate, and what of. One line for each advisory, so that a renewal is read as a diff.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def git(repository, *words):
    return subprocess.run(["git", "-C", repository, *words], check=True, capture_output=True, text=True).stdout


def advisories(repository):
    for path in git(repository, "ls-tree", "-r", "--name-only", "HEAD", "crates").splitlines():
        if not path.endswith(".md"):
            continue
        head = re.search(r"```toml\n(.*?)```", git(repository, "show", f"HEAD:{path}"), re.S)
        found = tomllib.loads(head[1])
        advisory, versions = found["advisory"], found.get("versions", {})
        if "withdrawn" not in advisory:
            yield {
                "id": advisory["id"],
                "crate": advisory["package"],
                "kind": advisory.get("informational", "vulnerability"),
                "patched": versions.get("patched", []),
                "unaffected": versions.get("unaffected", []),
            }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    repository = sys.argv[1]
    commit, date = git(repository, "log", "-1", "--format=%H %cs").split()
    found = sorted(advisories(repository), key=lambda one: one["id"])
    lines = ",\n".join(json.dumps(one) for one in found)
    path = ROOT / "tests/advisories.json"
    path.write_text(f'{{"commit": "{commit}", "date": "{date}", "advisories": [\n{lines}\n]}}\n')
    print(f"{len(found)} advisories as of {date} in {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Opens the page of a real consortium of 200 sites in a browser, large and small, light and dark, and has axe-core judge it.

    deploy/page/prove.py --bin target/release [--out DIR]

Needs Python, both programs, and `chromium`, `node` and `npm` (Debian's packages); where one is missing, it says so and ends well. Pictures
go to OUT.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from consortium import Consortium, Failed, free_ports, get, wait_until  # noqa: E402

# The browser is Debian's; this drives it, and that judges pages.
PACKAGES = ("playwright-core@1.64.1", "axe-core@4.14.1")


def packages():
    """The folder with the packages, in the user's cache."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "archipelago" / "page"
    if not all((cache / "node_modules" / name.split("@")[0]).is_dir() for name in PACKAGES):
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-package-lock", "--no-save", "--prefix", str(cache), *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    return cache


def prove(world, out):
    world.found()
    world.publish_reference()
    world.run(world.coordinator, "task", "publish", "lung", "--epochs", 2)
    for number in range(200):
        world.run(world.coordinator, "site", "add", f"hospital-{number}")
    world.let_in("north")
    wait_until("the task is done", lambda: "accepted" in world.run(world.coordinator, "task", "show", 1))
    world.run(world.coordinator, "withdraw", "lung", "--site", "north")
    world.run(world.coordinator, "task", "publish", "lung", "--epochs", 2)
    wait_until("the next one too", lambda: "accepted" in world.run(world.coordinator, "task", "show", 2))
    port = free_ports(1)[0]
    world.start("page", world.coordinator, "page", "--listen", f"127.0.0.1:{port}")
    wait_until("the page is served", lambda: world.lives("page") and get(f"http://127.0.0.1:{port}/"))
    leader = world.running[f"node{wait_until('somebody leads', world.leader)}"].pid
    environment = dict(os.environ, NODE_PATH=str(packages() / "node_modules"), ARCHIPELAGO_CONFIG=str(world.work / "lung/operator/operator.toml"))
    command = ["node", HERE / "look.cjs", f"http://127.0.0.1:{port}", out, shutil.which("chromium"), world.coordinator, leader]
    done = subprocess.run(list(map(str, command)), env=environment, cwd=world.work)
    if done.returncode != 0:
        raise Failed("the page is not as it should be")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--bin", type=pathlib.Path, required=True, help="the folder with both programs")
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path("page-out"), help="where pictures go")
    args = arguments.parse_args()
    for program in ("chromium", "node", "npm"):
        if shutil.which(program) is None:
            print(f"skipped: `{program}` is not installed (Debian's packages chromium, nodejs and npm)")
            return 0
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        world = Consortium((args.bin.resolve(), args.bin.resolve()), pathlib.Path(scratch).resolve())
        try:
            prove(world, args.out.resolve())
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        finally:
            world.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())

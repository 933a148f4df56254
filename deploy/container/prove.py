#!/usr/bin/env python3
"""Builds both images over dist/ and runs the set of compose.yaml as it documents itself: founded, two sites let in, their cells mapped, the
leader's container killed, and what was accepted looked for.

    deploy/container/prove.py --bin target/release --dist dist

Needs Python with pip, `podman`, and `debootstrap` where the base image cannot be pulled (Debian's packages, as root); where containers
cannot run, it says so and ends well.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from consortium import Failed, wait_until  # noqa: E402

BASE = "debian:12-slim"
COMPOSE = "podman-compose==1.6.0"
# What a machine may want before a container starts at all: limits below its own, another runtime.
WAYS = [runtime + limits for runtime in ([], ["--runtime", "runc"]) for limits in ([], ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=2048:2048"])]


class Cannot(Exception):
    pass


def call(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)


def must(*command, **options):
    done = call(*command, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout


def base(scratch):
    """Has the image that the Containerfiles begin with."""
    if call("podman", "image", "exists", BASE).returncode == 0 or call("podman", "pull", BASE).returncode == 0:
        return
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise Cannot(f"`{BASE}` cannot be pulled, and without root and `debootstrap` it cannot be made")
    tree = scratch / "base"
    must("debootstrap", "--variant=minbase", "bookworm", tree)
    tar = subprocess.Popen(["tar", "-C", tree, "-c", "."], stdout=subprocess.PIPE)
    must("podman", "import", "-", BASE, stdin=tar.stdout)
    if tar.wait() != 0:
        raise Failed("the base image could not be packed")


def way():
    """The words with which containers start here: those of podman, and those of its `run`."""
    said = ""
    for words in WAYS:
        runtime = words[:2] if words[:1] == ["--runtime"] else []
        limits = words[len(runtime):]
        done = call("podman", *runtime, "run", "--rm", *limits, BASE, "true")
        if done.returncode == 0:
            return runtime, limits
        said = done.stderr.strip()[-300:]
    raise Cannot(f"podman starts no container: {said}")


def try_out(dist, runtime, limits):
    """Both archives, unpacked in a container without compiler and network, and the script in them."""
    commands = "cd /tmp && tar xf /dist/archipelago-coordinator-*-linux.tar.gz && tar xf /dist/archipelago-worker-*-linux.tar.gz && archipelago-worker-*/try.sh"
    said = must("podman", *runtime, "run", "--rm", *limits, "--network", "none", "--volume", f"{dist}:/dist:ro", BASE, "sh", "-c", commands)
    if len(re.findall(r"merged (?:north|south)/", said)) != 2:
        raise Failed(f"the script of the archive ended with: {said[-1500:]}")
    print("ok  three commands in a bare container: both archives unpacked, and a version that two sites have made", flush=True)


class Set:
    """The services of compose.yaml in a folder of their own."""

    def __init__(self, work, scratch, runtime, limits):
        self.work = work
        shutil.copy(HERE / "compose.yaml", work)
        must(sys.executable, "-m", "venv", scratch / "compose")
        must(scratch / "compose/bin/pip", "install", "--quiet", COMPOSE)
        self.compose = [scratch / "compose/bin/podman-compose", "--profile", "operator"]
        if runtime:
            self.compose.append(f"--podman-args={' '.join(runtime)}")
        if limits:
            self.compose.append(f"--podman-run-args={' '.join(limits)}")

    def __call__(self, *words):
        return must(*self.compose, *words, cwd=self.work)

    def operator(self, *words):
        return self("run", "-T", "--rm", "operator", *words)

    def begin(self, *words):
        log = open(self.work / "background.log", "ab")
        return subprocess.Popen(list(map(str, [*self.compose, *words])), cwd=self.work, stdout=log, stderr=log)

    def end(self):
        call(*self.compose, "down", "--volumes", "--timeout", "1", cwd=self.work)


def found(text, pattern):
    match = re.search(pattern, text, flags=re.M)
    return match and match[1]


def prove(services, worker):
    cells = {"shared": "one,two", "north": "north-1", "south": "south-1"}
    for seed, (name, batches) in enumerate(cells.items()):
        (services.work / name).mkdir()
        must(worker, "generate", "--out", services.work / name / f"{name}.h5ad", "--batches", batches, "--seed", seed, "--n-cells", 300, "--n-genes", 80)
    # A site's files are its own on a machine; here the user of the containers reads them.
    must("chmod", "-R", "a+rX", services.work)
    services.operator("found", "lung", "--nodes", "node1:7101,node2:7101,node3:7101", "--ops", "0.0.0.0:9101", "--operator", "anna", "--out", "lung")
    services("up", "--detach", "node1", "node2", "node3")
    services("run", "-T", "--rm", "trainer", "train", "/cells/shared.h5ad", "--batch-key", "batch", "--owner", "anna", "--dataset", "core",
             "--epochs", 2, "--out", "reference")
    services.operator("reference", "publish", "lung", "reference")
    services.operator("task", "publish", "lung", "--epochs", 2)
    services.operator("invite", "north", "south")
    for site in ("north", "south"):
        joining = services.begin("run", "-T", "--rm", site, "join", f"/consortium/{site}.invite", "--data", f"/cells/{site}.h5ad",
                                 "--batch-key", "batch", "--dir", ".")
        key = wait_until(f"{site} asks to be let in", lambda: found(services.operator("requests"), rf"^{site}  asks .*\n    key (\S+)$"))
        services.operator("approve", site, "--fingerprint", key)
        if joining.wait(60) != 0:
            raise Failed(f"{site} did not come in: {(services.work / 'background.log').read_text()[-1500:]}")
    services("up", "--detach", "north", "south")
    accepted = lambda task: len(re.findall(r"accepted: 1 conditions", services.operator("task", "show", task))) == 2  # noqa: E731
    wait_until("both sites have handed in", lambda: accepted(1))
    version = found(services.operator("reference", "show", "lung"), r"^current +(\S+)$")
    print(f"ok  three coordinators and two sites in containers: both have mapped, version {version[:12]}", flush=True)

    leader = found(services.operator("status"), r"^leader +(\d)$")
    begun = time.monotonic()
    container = must("podman", "ps", "--quiet", "--filter", f"name=node{leader}").split()[0]
    must("podman", "kill", "--signal", "KILL", container)
    another = wait_until("another leads", lambda: (now := found(services.operator("status"), r"^leader +(\d)$")) and now != leader and now)
    if found(services.operator("reference", "show", "lung"), r"^current +(\S+)$") != version or not accepted(1):
        raise Failed("what was accepted is not there any more")
    services.operator("site", "add", "east")
    print(f"ok  the container of node {leader} was killed: node {another} leads after {time.monotonic() - begun:.1f} s, and everything is there", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--bin", type=pathlib.Path, required=True, help="the folder with the worker, for made-up cells")
    arguments.add_argument("--dist", type=pathlib.Path, required=True, help="what `make release` has packed")
    args = arguments.parse_args()
    if shutil.which("podman") is None:
        print("skipped: `podman` is not installed (Debian's package of that name)")
        return 0
    with tempfile.TemporaryDirectory(prefix="archipelago-") as scratch:
        scratch, services = pathlib.Path(scratch), None
        scratch.chmod(0o755)
        work = scratch / "set"
        work.mkdir()
        try:
            base(scratch)
            runtime, limits = way()
            for program in ("coordinator", "worker"):
                must("podman", *runtime, "build", *limits, "--file", HERE / f"{program}.Containerfile", "--tag", f"archipelago-{program}", args.dist.resolve())
                size = must("podman", "images", "--format", "{{.Size}}", f"localhost/archipelago-{program}").strip()
                print(f"ok  the image of the {program} has {size}", flush=True)
            try_out(args.dist.resolve(), runtime, limits)
            services = Set(work, scratch, runtime, limits)
            prove(services, args.bin.resolve() / "archipelago-worker")
        except Cannot as error:
            print(f"skipped: containers cannot run here: {error}")
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        finally:
            if services:
                services.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())

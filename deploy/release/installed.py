#!/usr/bin/env python3
"""Shows that the archives of `dist/` run where nothing else is.

    deploy/release/installed.py --dist dist

Unpacks both into an empty folder that then is the whole system of the programs: no compiler, no cache, no environment; of the machine
only the C library and the C++ runtime, which the page on installing asks for. The network is a namespace of its own, with a loopback and no
route. There, three coordinators are founded, two sites come in, map, and their columns are merged. Needs root, for namespaces and chroot.
"""

import argparse
import ctypes
import fcntl
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from consortium import Consortium, Failed, wait_until  # noqa: E402

CLONE_NEWNS, CLONE_NEWNET, MS_REC, MS_PRIVATE, MS_BIND = 0x20000, 0x40000000, 0x4000, 1 << 18, 0x1000
# What may be taken of the machine.
SYSTEM = re.compile(r"^(ld-linux.*|lib(c|m|dl|rt|pthread|util|gcc_s|stdc\+\+)\.so\..*)$")


def call(name, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def leave_the_network():
    """From here on this process has a loopback and nothing else, and mounts that nobody else sees."""
    call("unshare", CLONE_NEWNS | CLONE_NEWNET)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, siocgifflags, request), 16)
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", b"lo", flags | iff_up))


def furnish(root, dist):
    """Unpacks the archives, and adds what they ask of a machine. Returns the folders with the programs, as seen from inside."""
    folders = []
    for name in ("coordinator", "worker"):
        (archive,) = dist.glob(f"archipelago-{name}-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(root / "opt", filter="data")
        folders.append(pathlib.Path("/opt") / archive.name.removesuffix(".tar.gz") / "bin")
    for folder in folders:
        program = root / folder.relative_to("/") / f"archipelago-{folder.parent.name.split('-')[1]}"
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in re.findall(r"(/\S+) \(0x", listed):
            if str(root) in path:
                continue
            if not SYSTEM.match(pathlib.Path(path).name):
                raise Failed(f"{program.name} needs `{path}` of the machine, which the archive does not bring")
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(path), target)
    for folder in ("proc", "dev", "tmp", "w"):
        (root / folder).mkdir()
    call("mount", b"proc", str(root / "proc").encode(), b"proc", 0, None)
    for device in ("null", "urandom"):
        (root / "dev" / device).touch()
        call("mount", f"/dev/{device}".encode(), str(root / "dev" / device).encode(), None, MS_BIND, None)
    return folders


def map_and_merge(world):
    world.found()
    world.publish_reference()
    for site in ("north", "south"):
        world.let_in(site)
    world.run(world.coordinator, "task", "publish", "lung", "--epochs", 2)
    wait_until("both sites' columns are merged", lambda: world.run(world.coordinator, "task", "show", 1).count("accepted") >= 2)
    print(world.run(world.coordinator, "reference", "show", "lung"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--dist", type=pathlib.Path, required=True, help="what `make release` wrote")
    args = arguments.parse_args()
    if os.geteuid() != 0:
        print("skipped: only root can make a network namespace and change the root")
        return 0
    leave_the_network()
    with tempfile.TemporaryDirectory() as scratch:
        root, world = pathlib.Path(scratch), None
        try:
            world = Consortium(furnish(root, args.dist.resolve()), "/w", root)
            map_and_merge(world)
            print("ok  three coordinators and two sites, from the archives alone")
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        finally:
            if world:
                world.end()
            for mounted in ("dev/null", "dev/urandom", "proc"):
                if (root / mounted).exists() and os.path.ismount(root / mounted) or mounted.startswith("dev/"):
                    subprocess.run(["umount", root / mounted], check=False, capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

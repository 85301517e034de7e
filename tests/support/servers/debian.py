"""Packages of Debian, installed over the system in layers that no other process sees.

Mail servers conflict with each other, want fixed paths and users of their own, and begin to run when they are
installed. So a package is installed in a mount namespace in which an overlay lies over the whole system, and the server
runs in another overlay over that: with its files where it wants them, and nothing is left when it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers.once import made_once
from tests.support.servers.running import running_process

_LAYERS = """
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p kept
mount --bind "$kept" kept
hostname relay.example.org
echo 127.0.0.1 relay.example.org localhost >etc/hosts
"""
# A package must not start its server; apt-get has no lists where nobody fetched any.
_INSTALL = """
printf '#!/bin/sh\\nexit 101\\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
install() { chroot . apt-get -qq -o DPkg::Options::=--force-unsafe-io install -y --no-install-recommends "$@"; }
install "$@" || { chroot . apt-get -qq update && install "$@"; }
chroot . apt-get -qq clean
rm -f var/cache/apt/*.bin
"""
# No server asks for names in the network.
# The shell is the first process of its namespace: when it ends, because the tests closed its input, all others do.
_RUN = """
echo hosts: files >etc/nsswitch.conf
chroot . sh -c "$script" </dev/null &
read -r _ || :
"""
# What a server hands its mails to: the recipient is its argument.
_KEEP = """#!/bin/sh
umask 022
file=$(mktemp /kept/XXXXXXXXXX) && { printf '%s\\n' "$1"; cat; } >"$file" && mv "$file" "$file.mail"
"""


def debian_image(run_folder: Path, name: str, *packages: str) -> Path:
    """Return the layer with these packages installed over the system; the test is skipped where that cannot be."""
    if os.getuid() != 0 or shutil.which("apt-get") is None or shutil.which("unshare") is None:
        pytest.skip("needs Debian's packages, and root to install them in layers of their own")

    def install(folder: Path) -> str:
        _make_layers(folder)
        done = subprocess.run(
            [*_namespace(_LAYERS + _INSTALL), *packages],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else f"Debian's {' '.join(packages)} cannot be had: {done.stderr[-300:]}"

    return made_once(run_folder / f"debian-{name}", install) / "upper"


@contextmanager
def running_in_layers(
    image: Path, folder: Path, files: Mapping[str, str | bytes], script: str, port: int
) -> Iterator[Callable[[], str]]:
    """Run a server of an image: write these files at their paths, then run the script as root, until the block ends.

    The folder ``kept`` is ``/kept`` for the server; ``/keep RECIPIENT`` writes a mail into it.
    """
    _fill_layers(image, folder, files)
    command = _namespace(_LAYERS + _RUN)
    try:
        with running_process(command, port, folder / "log", _environment(folder) | {"script": script}) as log:
            yield log
    finally:
        _remove_layers(folder)


def run_in_layers(image: Path, folder: Path, files: Mapping[str, str | bytes], script: str) -> str:
    """Run a script as root in an image with these files, and return what it prints; it must succeed."""
    _fill_layers(image, folder, files)
    try:
        done = subprocess.run(
            _namespace(_LAYERS + 'chroot . sh -c "$script"'),
            env=_environment(folder) | {"script": script},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        _remove_layers(folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _fill_layers(image: Path, folder: Path, files: Mapping[str, str | bytes]) -> None:
    _make_layers(folder)
    # Two layers below a third are refused if one of them lies in the other: so the image is copied, with its marks.
    subprocess.run(["cp", "-a", f"{image}/.", folder / "upper"], check=True)  # noqa: S607
    for path, text in {**files, "/keep": _KEEP}.items():
        target = folder / "upper" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        octets = text.encode() if isinstance(text, str) else text
        target.write_bytes(octets)
        target.chmod(0o755 if octets.startswith(b"#!") else 0o644)
    (folder / "kept").chmod(0o777)


def _remove_layers(folder: Path) -> None:
    for name in ("upper", "work"):
        shutil.rmtree(folder / name)


def _make_layers(folder: Path) -> None:
    for name in ("upper", "work", "root", "kept"):
        (folder / name).mkdir()


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "folder": str(folder),
        "kept": str(folder / "kept"),
    }


def _namespace(script: str) -> list[str]:
    return ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "bash", "-c", script, "bash"]

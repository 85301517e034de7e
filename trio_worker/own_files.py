"""Edge. Folders and files that only this user may change: made so, and refused if others could have a hand in them.

Queue, journal, caught mails and log are in folders that other users of the machine must not write. As ssh does for its
keys, nothing is used that another user made, may write, or could exchange for something else.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
_ROOT = 0


class UntrustedPathError(PermissionError):
    """Another user made, or may change, what a path names; ``strerror`` is a whole sentence about it."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(errno.EPERM, f"{path} {why}: another user could read or change what is kept there", str(path))


def make_own_folder(folder: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make a folder and its missing parents with ``mode``; one that exists must be this user's and nobody else's.

    Raises `UntrustedPathError`, or another OSError if it cannot be made.
    """
    make_safe_folder(folder, mode)
    check_own_folder(folder)


def check_own_folder(folder: Path) -> None:
    """Raise `UntrustedPathError` unless a folder is this user's and nobody else's; FileNotFoundError if it is none."""
    check_way(folder)
    _check(folder, folder.stat(), owners={os.geteuid()}, is_below=True)


def make_safe_folder(folder: Path, mode: int) -> None:
    """Do what `make_own_folder` does, but accept a folder of root, and one where nobody can change files of others.

    For files that are opened by `open_own_file`, in a folder such as /var/log or /tmp.
    """
    missing = []
    for each in (folder, *folder.parents):
        if os.path.lexists(each):
            break
        missing.append(each)
    check_way(folder)
    for each in reversed(missing):
        with suppress(FileExistsError):  # another process of ours has just made it, or another user: it is checked
            each.mkdir(mode)
    check_way(folder)


def check_way(folder: Path) -> None:
    """Raise `UntrustedPathError` if another user can exchange a folder, or one of those above it, for another one.

    Folders that do not exist are passed over. A link may be followed if this user or root made it.
    """
    places = [Path(folder).absolute()]
    while places:
        place = places.pop()
        for each, is_below in _with_parents(place):
            try:
                status = each.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISLNK(status.st_mode):
                _check_owner(each, status, {_ROOT, os.geteuid()}, "is a link that was made by")
                with suppress(FileNotFoundError):
                    _check(each, each.stat(), owners={_ROOT, os.geteuid()}, is_below=is_below)
                    places.append(each.resolve())
                continue
            _check(each, status, owners={_ROOT, os.geteuid()} if is_below else None, is_below=is_below)


def open_own_file(path: Path, flags: int, mode: int = PRIVATE_FILE, *, folder: int | None = None) -> int:
    """Open a file without following a link; it must be a plain file of this user or of root. The caller closes it.

    ``folder`` is the descriptor of the folder that ``path`` is relative to. Raises `UntrustedPathError`, or another
    OSError. The file is not inherited by other programs.
    """
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EMLINK}:  # FreeBSD says EMLINK
            raise
        raise UntrustedPathError(path, "is a link") from None
    try:
        _check_file(path, os.fstat(file))
    except BaseException:
        os.close(file)
        raise
    return file


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedPathError(path, "is no plain file")
    _check_owner(path, status, {_ROOT, os.geteuid()}, "belongs to")


def read_own_file(path: Path) -> bytes:
    """Read a file that `open_own_file` opens; raises as that does."""
    with os.fdopen(open_own_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def replace_own_file(path: Path, content: bytes) -> None:
    """Write a file as a whole and put it in the place of an older one, so that a reader sees one or the other.

    Its folder must be one of `make_own_folder`. Raises OSError, and leaves no half of a file behind.
    """
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(open_own_file(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(content)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _with_parents(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield a folder and all folders above it, each with whether it lies below the working directory."""
    try:
        here = Path.cwd()
    except OSError:
        here = None  # the working directory was deleted
    for each in (folder, *folder.parents):
        yield each, here is not None and here in each.parents


def _check(path: Path, status: os.stat_result, *, owners: set[int] | None, is_below: bool) -> None:
    """Raise for a folder of another user, or one where others can exchange files.

    A folder at or above the working directory may be shared with a group: it was chosen by who stands there. One of
    root's is what root wants it to be: Kubernetes mounts writable ones.
    """
    if owners is not None:
        _check_owner(path, status, owners, "belongs to")
    if status.st_uid == _ROOT != os.geteuid() or (status.st_mode & stat.S_ISVTX and owners != {os.geteuid()}):
        return  # in a sticky folder nobody can remove or rename the files of others
    if status.st_mode & stat.S_IWOTH:
        raise UntrustedPathError(path, "can be written by all users (chmod o-w)")
    if is_below and status.st_mode & stat.S_IWGRP and not _is_private_group(status):
        raise UntrustedPathError(path, "can be written by its group (chmod g-w)")


def _check_owner(path: Path | str, status: os.stat_result, owners: set[int], what: str) -> None:
    if status.st_uid not in owners:
        us = os.geteuid()
        raise UntrustedPathError(path, f"{what} {_user_name(status.st_uid)}, and this is {_user_name(us)}")


def _is_private_group(status: os.stat_result) -> bool:
    """Return whether the group has the name of its only user, as many systems give each user one (umask 002)."""
    import grp  # noqa: PLC0415  rarely needed
    import pwd  # noqa: PLC0415

    try:
        user, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return user.pw_gid == group.gr_gid and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}


def _user_name(uid: int) -> str:
    import pwd  # noqa: PLC0415  only for a refusal

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"

"""Edge. Reads the email types from their folders, once at start. Blocks on files; awaits nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trio_worker.jobs.email_type import MESSAGE, Catalogue, TypeSpec, fault_of_type_name, read_type
from trio_worker.jobs.fault import Fault
from trio_worker.records import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BUILT_IN = Path(__file__).parent.parent / "mail" / "templates"
"""The folder of the built-in email types; they are made like those of an operator."""

_REQUIRED = ("subject.j2", "text.j2")
_FIELDS = "fields.toml"


@frozen
class CatalogueFaults:
    """All faults in the template folders, each with its file."""

    faults: tuple[Fault, ...]


def read_catalogue(dirs: Iterable[str | Path]) -> Catalogue | CatalogueFaults:
    """Read the built-in email types, then those of ``dirs``; a type in a later folder replaces the whole earlier one.

    A template outside the folders of the types (``_mail.html.j2``) can be extended by all types; one with the same name
    in a later folder replaces it. Names that begin with a dot, and files that are no templates, are ignored.
    """
    types: dict[str, TypeSpec] = {}
    sources: dict[str, str] = {}
    faults: list[Fault] = []
    for directory in (BUILT_IN, *map(Path, dirs)):
        if not directory.is_dir():
            faults.append(Fault(str(directory), "is not a folder"))
            continue
        for entry in sorted(directory.iterdir()):
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            if entry.suffix == ".j2":
                _read_into(sources, entry.name, entry, faults)
            elif entry.is_dir():
                _read_folder(entry, types, sources, faults)
    return CatalogueFaults(tuple(faults)) if faults else Catalogue(types, sources)


def type_names(dirs: Iterable[str | Path]) -> set[str]:
    """Return the names of all email types, those of ``dirs`` included, from the names of their folders; reads no file.

    Raises OSError for a folder that cannot be listed.
    """
    folders = (entry for directory in (BUILT_IN, *map(Path, dirs)) for entry in directory.iterdir() if entry.is_dir())
    return {MESSAGE, *(folder.name for folder in folders if fault_of_type_name(folder.name) is None)}


def _read_folder(folder: Path, types: dict[str, TypeSpec], sources: dict[str, str], faults: list[Fault]) -> None:
    """Read the folder of one email type; it replaces what an earlier folder had for this type."""
    if what := fault_of_type_name(folder.name):
        faults.append(Fault(str(folder), what))
        return
    for name in [name for name in sources if name.startswith(f"{folder.name}/")]:
        del sources[name]
    faults.extend(Fault(str(folder / name), "is missing") for name in (*_REQUIRED, _FIELDS) if not _has(folder, name))
    for template in sorted(folder.glob("*.j2")):
        _read_into(sources, f"{folder.name}/{template.name}", template, faults)
    if not _has(folder, _FIELDS):
        return
    match _text(folder / _FIELDS):
        case Fault() as fault:
            faults.append(fault)
        case source:
            match read_type(folder.name, source):
                case TypeSpec() as spec:
                    types[folder.name] = spec
                case found:
                    faults.extend(_placed(folder / _FIELDS, found))


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def _placed(file: Path, faults: tuple[Fault, ...]) -> Iterator[Fault]:
    yield from (Fault(f"{file}: {fault.path}" if fault.path else str(file), fault.reason) for fault in faults)


def _read_into(sources: dict[str, str], name: str, file: Path, faults: list[Fault]) -> None:
    match _text(file):
        case Fault() as fault:
            faults.append(fault)
        case source:
            sources[name] = source


def _text(file: Path) -> str | Fault:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        return Fault(str(file), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        return Fault(str(file), "is not UTF-8")

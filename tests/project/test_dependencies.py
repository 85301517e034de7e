"""What a worker is installed with: nothing unknown, and nothing with a published fault."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.paths import ROOT

ADVISORIES = tomllib.loads((ROOT / "tools" / "advisories.toml").read_text("utf-8"))["packages"]


def installed_with(name: str, found: dict[str, Version] | None = None) -> dict[str, Version]:
    """The versions of a package and of all that it needs here."""
    found = {} if found is None else found
    if canonicalize_name(name) not in found:
        needed = distribution(name)
        found[canonicalize_name(name)] = Version(needed.version)
        for text in needed.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                installed_with(requirement.name, found)
    return found


def test_every_package_was_looked_up() -> None:
    """A new dependency, of ours or of theirs, is reviewed before it is used."""
    assert installed_with("trio-worker").keys() - {"trio-worker"} <= ADVISORIES.keys()


def test_no_package_has_a_published_fault() -> None:
    """Each is at least the version that tools/advisories.toml names."""
    installed = installed_with("trio-worker")
    old = {
        name: (str(installed[name]), entry["because"])
        for name, entry in ADVISORIES.items()
        if name in installed and "least" in entry and installed[name] < Version(entry["least"])
    }
    assert old == {}


def test_our_own_bounds_keep_faulty_versions_out() -> None:
    """An installation of the package cannot get one of them, with any other packages."""
    for text in distribution("trio-worker").requires or ():
        requirement = Requirement(text)
        entry = ADVISORIES[canonicalize_name(requirement.name)]
        if "least" in entry and requirement.marker is None:
            lowest = min(Version(each.version) for each in requirement.specifier)
            assert lowest >= Version(entry["least"]), text


def test_an_unknown_package_is_told() -> None:
    """The walk does not pass over what is not installed."""
    try:
        installed_with("no-such-package-anywhere")
    except PackageNotFoundError:
        return
    raise AssertionError

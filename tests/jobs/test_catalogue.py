"""Folders become email types: built-in ones, those of an application, and every fault with its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.jobs.email_type import Catalogue, FieldSpec, TypeSpec, read_type
from trio_worker.jobs.job import Templated, sample_job
from trio_worker.mail.composer import Composer, open_composer
from trio_worker.mail.options import MailOptions
from trio_worker.mail.template import Rendered

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = 'says = "Tells something."\n[fields.email]\nkind = "recipient"\nsample = "a@b"\n'


def write_type(folder: Path, **files: str | bytes | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, str | bytes | None] = {"subject_j2": "s", "text_j2": "t", "fields_toml": FIELDS, **files}
    for name, text in parts.items():
        if text is not None:
            (folder / name.replace("_", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def faults_of(*dirs: Path) -> list[tuple[str, str]]:
    read = read_catalogue(dirs)
    assert isinstance(read, CatalogueFaults)
    return [(fault.path, fault.reason) for fault in read.faults]


def test_six_types_are_built_in_and_work() -> None:
    """What ships is complete, each type with an HTML part, and its templates are proven."""
    catalogue = read_catalogue(())

    assert isinstance(catalogue, Catalogue)
    names = {"Registration", "ResetPassword", "EmailChange", "WeeklyRecap", "MonthlyRecap", "YearlyRecap"}
    assert set(catalogue.types) == names
    assert all(f"{name}/html.j2" in catalogue.sources for name in names)
    assert isinstance(open_composer(MailOptions(), catalogue), Composer)


def test_plain_parts_are_narrow() -> None:
    """No line of a built-in plain text, links aside, is wider than 75 characters."""
    catalogue = read_catalogue(())
    assert isinstance(catalogue, Catalogue)
    composer = open_composer(MailOptions(), catalogue)
    assert isinstance(composer, Composer)

    for spec in catalogue.types.values():
        for declared in ({}, {"stats": None}):
            content = sample_job(spec).content
            assert isinstance(content, Templated)
            rendered = composer.templates[spec.email_type].render({**content.fields, **declared})
            assert isinstance(rendered, Rendered)
            (_, text), _ = rendered.body.texts().parts
            assert all(len(line) <= 75 for line in text.octets.decode().splitlines() if "://" not in line)


def test_a_folder_of_ones_own_is_a_type(tmp_path: Path) -> None:
    """A new type needs a folder and no code."""
    write_type(tmp_path / "Invoice", html_j2="<p>")
    (tmp_path / "README").write_text("no template")
    (tmp_path / ".git").mkdir()
    catalogue = read_catalogue([tmp_path])

    assert isinstance(catalogue, Catalogue)
    assert catalogue.types["Invoice"] == TypeSpec(
        "Invoice", (FieldSpec("email", "recipient", sample="a@b"),), says="Tells something."
    )
    assert catalogue.sources["Invoice/html.j2"] == "<p>"


def test_a_later_folder_replaces_a_type_as_a_whole(tmp_path: Path) -> None:
    """One's own Registration wins over ours, and nothing of ours stays behind; a frame is replaced by its name."""
    write_type(tmp_path / "Registration", text_j2="mine")
    (tmp_path / "_mail.html.j2").write_text("my frame")
    catalogue = read_catalogue([str(tmp_path)])

    assert isinstance(catalogue, Catalogue)
    assert catalogue.sources["Registration/text.j2"] == "mine"
    assert "Registration/html.j2" not in catalogue.sources
    assert catalogue.sources["_mail.html.j2"] == "my frame"


def test_all_faults_come_at_once_each_with_its_file(tmp_path: Path) -> None:
    """A missing folder, missing or unreadable files, and wrong names are reported together."""
    write_type(tmp_path / "Message")
    write_type(tmp_path / "a b")
    write_type(tmp_path / "Bare", subject_j2=None, text_j2=None, fields_toml=None)
    write_type(tmp_path / "Latin", text_j2=b"\xe9", fields_toml=b"\xe9")
    write_type(tmp_path / "Folder", subject_j2=None)
    (tmp_path / "Folder" / "subject.j2").mkdir()

    assert faults_of(tmp_path / "gone", tmp_path) == [
        (str(tmp_path / "gone"), "is not a folder"),
        (str(tmp_path / "Bare/subject.j2"), "is missing"),
        (str(tmp_path / "Bare/text.j2"), "is missing"),
        (str(tmp_path / "Bare/fields.toml"), "is missing"),
        (str(tmp_path / "Folder/subject.j2"), "cannot be read: Is a directory"),
        (str(tmp_path / "Latin/text.j2"), "is not UTF-8"),
        (str(tmp_path / "Latin/fields.toml"), "is not UTF-8"),
        (str(tmp_path / "Message"), "cannot be replaced: this type is built in"),
        (str(tmp_path / "a b"), "is not a name for an email type: up to 64 letters, digits, '_', '.' or '-'"),
    ]


def test_a_fault_in_the_fields_names_file_and_key(tmp_path: Path) -> None:
    """What is wrong in a fields.toml is found by file and key."""
    folder = write_type(tmp_path / "Own", fields_toml=FIELDS.replace("recipient", "mailbox"))

    paths = [path for path, _ in faults_of(tmp_path)]

    assert paths == [f"{folder / 'fields.toml'}: fields.email.kind"]


@pytest.mark.parametrize(
    ("source", "path", "part"),
    [
        ("a = ", "", "is not TOML"),
        ("fields = 7", "fields", "must be tables"),
        (FIELDS.replace("Tells something.", ""), "says", "one sentence"),
        (FIELDS.replace('"Tells something."', "7"), "says", "one sentence"),
        ("colour = 1\n" + FIELDS, "colour", "is not one of the keys here: says, unsubscribe_path, fields"),
        ('unsubscribe_path = "x"\n' + FIELDS, "unsubscribe_path", "beginning with '/'"),
        ('unsubscribe_path = "/a>b"\n' + FIELDS, "unsubscribe_path", "beginning with '/'"),
        (f'unsubscribe_path = "/{"a" * 400}"\n' + FIELDS, "unsubscribe_path", "longer than 400 characters"),
        ("fields.x = 1\n" + FIELDS, "fields.x", "must be a table"),
        (FIELDS + "colour = 1\n", "fields.email.colour", "is not one of a field's keys: kind, required, sample"),
        (
            FIELDS.replace("recipient", "mail"),
            "fields.email.kind",
            "must be one of recipient, line, text, token, number",
        ),
        (FIELDS.replace('kind = "recipient"', ""), "fields.email.kind", "is missing: one of recipient, line, text"),
        (FIELDS + "required = 1\n", "fields.email.required", "true or false"),
        (FIELDS.replace("a@b", "nobody"), "fields.email.sample", "has no @"),
        (FIELDS.replace('sample = "a@b"', ""), "fields.email.sample", "is missing"),
        (FIELDS + '[fields."a b"]\nkind = "line"\nsample = ""\n', "fields.a b", "not a name for a field"),
        (FIELDS + '[fields.product]\nkind = "line"\nsample = ""\n', "fields.product", "not a name for a field"),
        (FIELDS + '[fields.loop]\nkind = "line"\nsample = ""\n', "fields.loop", "not a name for a field"),
        (FIELDS + '[fields.to]\nkind = "recipient"\nsample = "a@b"\n', "fields", "exactly one field"),
        (FIELDS + "required = false\n", "fields", "exactly one field"),
        ('says = "x"\n', "fields", "exactly one field"),
    ],
)
def test_what_is_wrong_in_the_fields_is_told(source: str, path: str, part: str) -> None:
    """Every key of a fields.toml is checked, its samples too."""
    faults = read_type("Own", source)

    assert isinstance(faults, tuple)
    assert [fault.path for fault in faults] == [path]
    assert part in faults[0].reason


def test_an_optional_field_needs_no_sample() -> None:
    """A field that may be absent is absent in previews, unless it has a sample."""
    spec = read_type("Own", FIELDS + '[fields.note]\nkind = "text"\nrequired = false\n')

    assert isinstance(spec, TypeSpec)
    assert spec.fields[1] == FieldSpec("note", "text", required=False)

"""Edge. Printing for all commands: errors on standard error, JSON on standard output, and exits with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlsplit

from trio_worker.cli.exit_codes import LOGIN_REFUSED, MISCONFIGURED, UNREACHABLE
from trio_worker.printing import complain, say_text
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.url import shown_redis_url
from trio_worker.settings.reader import Settings
from trio_worker.settings.spelling import nearest

if TYPE_CHECKING:
    from trio_worker.cli.json_documents import Document

_T = TypeVar("_T")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the known word that is spelled most similarly, or an empty string."""
    similar = nearest(word, known)
    return f"; did you mean {similar}?" if similar else ""


def refuse(code: int, *lines: str) -> NoReturn:
    """Print on standard error why the command ends here, and exit."""
    complain(*lines)
    raise SystemExit(code)


def report_unavailable(unavailable: Unavailable, settings: Settings) -> int:
    """Print why Redis did not do what a command asked; return the exit code."""
    complain(f"Redis at {redis_name(settings.redis.url)}: {unavailable.reason}")
    if unavailable.is_login:
        return LOGIN_REFUSED
    return MISCONFIGURED if unavailable.is_misconfigured else UNREACHABLE


def answer_or_exit(answer: _T | Unavailable, settings: Settings) -> _T:
    """Return the answer of Redis; if it is unavailable, print why and exit with 69, 77 or 78."""
    if isinstance(answer, Unavailable):
        raise SystemExit(report_unavailable(answer, settings))
    return answer


def redis_name(url: str) -> str:
    """Return a Redis URL without its login and options, fit to be shown."""
    parts = urlsplit(url)
    if parts.scheme == "embedded":
        return f"embedded:{parts.path}"
    return shown_redis_url(url)


def print_json(kind: Document, document: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
    """Print one JSON document, or a list of documents, each with its ``schema``; the keys are stable."""
    from trio_worker.cli.json_documents import with_schema  # noqa: PLC0415  a worker prints none

    match document:
        case Mapping():
            whole: object = with_schema(kind, document)
        case _:
            whole = [with_schema(kind, each) for each in document]
    say_text(json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=False))

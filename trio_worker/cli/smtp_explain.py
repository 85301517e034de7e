"""Edge. ``smtp explain``: what a reply of a relay is taken for, and what becomes of the mail."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias, assert_never

from cyclopts import Parameter

from trio_worker.cli.exit_codes import OK, USAGE
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import print_json, refuse
from trio_worker.printing import say
from trio_worker.privacy import mask_text
from trio_worker.smtp.backoff import LOGIN_BACKOFF, OTHER_BACKOFF, STANDING_BACKOFF
from trio_worker.smtp.pool import SUSPENDED_SECONDS
from trio_worker.smtp.reply import Reply, Stage, reply_from
from trio_worker.telemetry.number_words import duration
from trio_worker.worker.evidence import DOUBTFUL_IN_A_ROW
from trio_worker.worker.named_time import hinted_seconds
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.pace import FIRST_PAUSE_SECONDS
from trio_worker.worker.reply_classes import Classified, classify, is_for_good
from trio_worker.worker.reply_rule import ReplyClass

StageName: TypeAlias = Literal["mail", "rcpt", "data", "final"]

_REPLY = re.compile(r"\s*([45][0-9]{2})(?:[ -]+(.*))?\s*", re.DOTALL)
_MEANINGS = {
    ReplyClass.MAIL: "this mail",
    ReplyClass.RECIPIENT: "this recipient",
    ReplyClass.US: "us: our sender, host name, address, login or reputation",
    ReplyClass.RATE: "our rate: more mails in a time than the relay takes",
    ReplyClass.CONCURRENCY: "our connections: more at once than the relay takes",
    ReplyClass.STANDING: "our account: a quota, a sandbox or a suspension",
    ReplyClass.SESSION: "the session, or the relay at this moment",
}


def explain_reply(
    reply: Annotated[str, Parameter(help='The reply, as a log or a dead letter has it: "550 5.4.5 Daily ...".')],
    *,
    at: Annotated[StageName, Parameter(help="Command that earned it; final is the end of the mail.")] = "final",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Show what a reply of the relay is taken for, by which rule, and what becomes of a mail that gets it."""
    found = _REPLY.fullmatch(reply)
    if found is None:
        refuse(USAGE, "smtp explain: a refusal begins with its code, from 400 to 599")
    settings = load_settings(config, may_be_missing=True)  # without one there are no rules of the user
    read = reply_from(int(found[1]), found[2] or "", Stage(at))
    classified = classify(read, settings.replies)
    becomes = consequence(read, classified, settings.retry)
    if as_json:
        document = {
            "code": read.code,
            "enhanced": read.enhanced,
            "at": at,
            "class": str(classified.reply_class),
            "by": classified.source,
            "consequence": becomes,
        }
        print_json(Document.REPLY, document)
        return OK
    say(
        f"reply        {mask_text(str(read))}",
        f"at           {at.upper()}",
        f"class        {classified.reply_class}: it speaks of {_MEANINGS[classified.reply_class]}",
        f"by           {classified.source}",
        f"consequence  {becomes}",
    )
    return OK


def consequence(reply: Reply, classified: Classified, retry: RetryPolicy) -> str:
    """Return what becomes of a mail that gets a reply, and of the others, in a sentence or two."""
    named = hinted_seconds(reply.text)
    if reply.code == 421:  # RFC 5321, 3.8
        return (
            "The relay closes the connection, so it took nothing. The job goes back at no cost, and goes over another."
        )
    match classified.reply_class:
        case ReplyClass.MAIL | ReplyClass.RECIPIENT:
            return _of_one(reply, classified, retry)
        case ReplyClass.RATE:
            pause = duration(FIRST_PAUSE_SECONDS if named is None or classified.names_recipient else named)
            return f"The job goes back at no cost. Claiming pauses for {pause}, then goes on a little slower."
        case ReplyClass.CONCURRENCY:
            return (
                "The job goes back at no cost. The connection is closed, and its place stays empty for "
                f"{duration(SUSPENDED_SECONDS)}; then one more connection is tried."
            )
        case ReplyClass.US | ReplyClass.STANDING:
            backoff = LOGIN_BACKOFF if classified.reply_class is ReplyClass.US else STANDING_BACKOFF
            probe = f"A mail probes after {duration(backoff.first_seconds if named is None else named)}"
            if named is None and backoff.cap_seconds > backoff.first_seconds:
                probe += f", then ever later, up to {duration(backoff.cap_seconds)}"
            if classified.names_recipient and not classified.is_doubtful:
                return (
                    f"The job goes back at no cost. If {DOUBTFUL_IN_A_ROW} mails in a row get such a reply, claiming "
                    f"stops. {probe}."
                )
            if not classified.is_doubtful:
                return f"The job goes back at no cost. Claiming stops. {probe}."
            end = "is dead" if is_for_good(reply, classified) else "pays its attempts"
            return (
                f"The mail waits. If {DOUBTFUL_IN_A_ROW} mails in a row get such a reply, claiming stops, and other "
                f"mails probe soon. If others are accepted, the mail {end}."
            )
        case ReplyClass.SESSION:
            soonest, latest = duration(OTHER_BACKOFF.first_seconds), duration(OTHER_BACKOFF.cap_seconds)
            return f"The job goes back at no cost. Claiming stops; a mail probes after {soonest}, later after {latest}."
        case _:
            assert_never(classified.reply_class)


def _of_one(reply: Reply, classified: Classified, retry: RetryPolicy) -> str:
    if not is_for_good(reply, classified):
        return f"The mail is tried again later, up to {retry.max_attempts} times."
    if classified.is_known or not retry.guard:
        return "The mail is dead."
    return f"The mail is dead. After {retry.guard} mails in a row with the same reply, further ones are held."

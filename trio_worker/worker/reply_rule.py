"""Pure. Reply classes, and the user's rules for replies; without the table of known replies, which they go before."""

from __future__ import annotations

import re
from enum import StrEnum

from trio_worker.records import frozen
from trio_worker.smtp.reply import Reply


class ReplyClass(StrEnum):
    """What a refusal speaks of."""

    MAIL = "mail"  # this mail: its size, its content
    RECIPIENT = "recipient"  # one address
    US = "us"  # our sender, host name, address, login or reputation
    RATE = "rate"  # more mails in a time than the relay takes
    CONCURRENCY = "concurrency"  # more connections at once than the relay takes
    STANDING = "standing"  # our account: a quota is used up, it is in a sandbox, or it is suspended
    SESSION = "session"  # this session, or the relay at this moment


@frozen
class ReplyRule:
    """A rule of the user, one table ``[[replies]]``: replies that fit are taken as of ``reply_class``.

    ``code`` is a reply code, an enhanced code or both (``550``, ``5.4.5``, ``550 5.4.5``), ``text`` a pattern that is
    found anywhere in the reply's text, in any case. What is empty fits every reply.
    """

    reply_class: ReplyClass
    code: str = ""
    text: str = ""

    def fits(self, reply: Reply) -> bool:
        """Whether the rule speaks of this reply."""
        return self._has_code(reply) and (not self.text or re.search(self.text, reply.text, re.IGNORECASE) is not None)

    def _has_code(self, reply: Reply) -> bool:
        return self.code in {"", str(reply.code), reply.enhanced, reply.codes}

"""What the mail catcher caught."""

from __future__ import annotations

from collections import Counter

from trio_worker.capture.catcher import Catcher


def times_sent(relay: Catcher) -> Counter[str]:
    return Counter(recipient for mail in relay.mails for recipient in mail.recipients)

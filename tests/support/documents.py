"""Documents that are jobs, or nearly: the types that they are read by, and strategies for all of their parts."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import strategies as st

from trio_worker.jobs.email_type import FieldSpec, TypeSpec

TYPES: Mapping[str, TypeSpec] = {
    "Welcome": TypeSpec(
        "Welcome",
        (
            FieldSpec("email", "recipient", sample="ann@example.com"),
            FieldSpec("username", "line", sample="Ann"),
            FieldSpec("token", "token", sample="t"),
            FieldSpec("note", "text", required=False),
            FieldSpec("count", "number", required=False),
            FieldSpec("stats", "object", required=False),
        ),
    )
}
WELCOME = {"email": "ann@example.com", "username": "Ann", "token": "abc123"}


def envelope(email_type: str, payload: object, **more: object) -> bytes:
    document = {"task_type": "Email", "data": {"email_type": email_type, "data": payload}, **more}
    return json.dumps(document).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MAILBOX = st.sampled_from(["a@b", "Ann <ann@example.com>", "Änne <ä@ö>", "x", "a@b, c@d", "a@b\n"]) | JSON
WORD = st.sampled_from(["s", "one\ntwo", "x" * 999, "", "ü"]) | JSON
ATTACHMENT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a.txt", "a/b", "", ".."]) | JSON,
        "type": st.sampled_from(["text/plain", "text", "multipart/mixed"]) | JSON,
        "base64": st.sampled_from(["aGk=", "aGk", "!", ""]) | JSON,
    },
)
PAYLOAD = st.fixed_dictionaries(
    {},
    optional={
        "email": MAILBOX,
        "username": WORD,
        "token": WORD,
        "note": WORD,
        "count": JSON,
        "stats": JSON,
        "to": MAILBOX | st.lists(MAILBOX, max_size=3),
        "cc": MAILBOX | st.lists(MAILBOX, max_size=3),
        "bcc": st.lists(MAILBOX, max_size=3),
        "reply_to": MAILBOX,
        "subject": WORD,
        "text": WORD,
        "html": WORD,
        "headers": st.dictionaries(st.sampled_from(["X-A", "x-a", "To", "b c"]), WORD, max_size=3) | JSON,
        "attachments": st.lists(ATTACHMENT | JSON, max_size=3) | JSON,
    },
)
TIME = st.sampled_from(["2030-01-01T00:00:00Z", "2030-01-01T00:00:00", "now"]) | JSON
DOCUMENT = st.fixed_dictionaries(
    {
        "task_type": st.sampled_from(["Email"] * 5 + ["Sms"]),
        "data": st.fixed_dictionaries(
            {"email_type": st.sampled_from(["Welcome", "Message", "Message", "Other"]), "data": PAYLOAD | JSON}
        ),
    },
    optional={
        "id": WORD,
        "enqueued_at": TIME,
        "not_before": TIME,
        "expires_at": TIME,
        "traceparent": WORD,
        "new": JSON,
    },
)

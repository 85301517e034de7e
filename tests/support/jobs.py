"""Jobs as producers push them."""

from __future__ import annotations

import json


def job_bytes(number: int = 0, email: str | None = None, **envelope: object) -> bytes:
    """A Registration job as a producer pushes it."""
    fields = {"email": email or f"user{number}@example.com", "username": "ann", "token": f"secret{number}"}
    document = {"task_type": "Email", "data": {"email_type": "Registration", "data": fields}, **envelope}
    return json.dumps(document).encode()

"""What an operator puts into the production file, in the place of its placeholders."""

from __future__ import annotations

OWN_VALUES = {
    "TRIO_WORKER__SMTP__HOST": "smtp.shop.dev",
    "TRIO_WORKER__MAIL__FROM": "Shop <no-reply@shop.dev>",
    "TRIO_WORKER__MAIL__FRONTEND_URL": "https://shop.dev",
}

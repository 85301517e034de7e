"""The relay of the settings, as a session asks for it."""

from __future__ import annotations

from attrs import evolve

from trio_worker.cli.setup import relay_of
from trio_worker.settings.record import Settings


def test_a_host_beyond_ascii_is_the_one_of_idna_2008() -> None:
    """Python's own codec would make another domain of it (``fass``), for the look-up and for the certificate."""
    settings = Settings()
    named = evolve(settings, smtp=evolve(settings.smtp, host="mail.Faß.example", tls="none"))

    assert relay_of(named).options.host == "mail.xn--fa-hia.example"
    assert relay_of(settings).options.host == settings.smtp.host

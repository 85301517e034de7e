"""Failures of a connection in an operator's words; the texts are those that Python 3.11 and redis-py 8.1 gave."""

from __future__ import annotations

import pytest

from trio_worker.redis.connection_words import CLOSED, connection_words

READING = "Error while reading from localhost:7702 : (1, '[SSL: {0}] {0} (_ssl.c:2580)')"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (READING.format("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "asks for a certificate of this client"),
        (READING.format("TLSV1_ALERT_UNKNOWN_CA"), "does not know the authority that signed redis.cert_file"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired (_ssl.c:2580)", "has expired"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_UNKNOWN] sslv3 alert certificate unknown (_ssl.c:2580)", "does not accept"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure (_ssl.c:1006)", "redis.cert_file"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "does not speak TLS"),
    ],
)
def test_what_a_server_has_against_our_certificate_is_told_with_its_setting(text: str, words: str) -> None:
    """An operator sets files, and knows neither OpenSSL's names nor its line numbers."""
    told = connection_words(text)

    assert words in told
    assert "_ssl.c" not in told


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("self-signed certificate in certificate chain", "set redis.ca_file"),
        ("certificate has expired", "is not valid now"),
        ("Hostname mismatch, certificate is not valid for 'localhost'", "is for another host name"),
    ],
)
def test_a_certificate_of_redis_that_is_not_trusted_says_why(reason: str, told: str) -> None:
    """The setting to correct is another one for each."""
    text = f"Error 1 connecting to localhost:7702. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {reason}"

    words = connection_words(f"{text} (_ssl.c:1006).")

    assert told in words
    assert f"({reason})" in words


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Error 111 connecting to 127.0.0.1:1. Connect call failed ('127.0.0.1', 1).", "127.0.0.1:1: Connection ref"),
        ("Error 111 connecting to [::1]:1. Connection refused.", "[::1]:1: Connection refused"),
        ("Error -2 connecting to no.example:1. [Errno -2] Name or service not known.", "no.example:1: Name or service"),
        ("Error None connecting to a.example:1. no address for a.example.", "a.example:1: no address for a.example"),
    ],
)  # fmt: skip
def test_both_clients_tell_the_same_of_a_server_that_cannot_be_reached(text: str, told: str) -> None:
    """The address, and the reason as the system says it; no number of it."""
    assert connection_words(text).startswith(f"cannot connect to {told}")


@pytest.mark.parametrize(
    "text",
    [
        "Connection closed by server.",
        "Error UNKNOWN while writing to socket. Connection lost.",
        "Error 32 while writing to socket. Broken pipe.",
        "Error while reading from localhost:7702 : (104, 'Connection reset by peer')",
        "Error while reading from a.example:6379 : (104, 'Connection reset by peer')",
        "[Errno 104] Connection reset by peer",
        "EOF occurred in violation of protocol (_ssl.c:2427)",
    ],
)
def test_a_connection_that_ended_is_told_as_that(text: str) -> None:
    """Redis did it, or a proxy; which of them cannot be known."""
    assert connection_words(text).startswith(CLOSED)


def test_a_text_without_words_is_told_as_it_is() -> None:
    """Nothing is hidden."""
    assert connection_words("something that is not known") == "something that is not known"

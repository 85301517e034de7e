"""Edge. TLS for ``rediss://``: whom we trust, and the certificate that the server may ask us for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trio_worker.redis.options import RedisOptions
from trio_worker.redis.url import RedisUrlError

if TYPE_CHECKING:
    import ssl


def redis_tls_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Return the context of a client; ``key_file`` may be empty if the key is in ``cert_file``.

    Raises `RedisUrlError` that names the setting whose file cannot be used.
    """
    import ssl  # noqa: PLC0415  a twentieth of the time of a command, and only for rediss://

    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise RedisUrlError(f"redis.ca_file: {ca_file}: {_words(error)}") from None
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file or None, _no_password)
        except (OSError, ValueError) as error:
            raise RedisUrlError(_fault_of_pair(cert_file, key_file, error)) from None
    return context


def _fault_of_pair(cert_file: str, key_file: str, error: OSError | ValueError) -> str:
    """Return which of the two files is to blame: OpenSSL reads both at once, and names none."""
    certificate, key = f"redis.cert_file: {cert_file}", f"redis.key_file: {key_file}"
    for named, file in ((certificate, cert_file), (key, key_file)):
        fault = _unreadable(file) if file else ""
        if fault:
            return f"{named}: {fault}"
    words = _words(error)
    if "KEY_VALUES_MISMATCH" in words:
        return f"{key}: is not the key of the certificate in {certificate}"
    if isinstance(error, ValueError) and not isinstance(error, OSError) and key_file:
        return f"{key}: {words}"
    return f"{certificate}{f', {key}' if key_file else ''}: has no certificate or key in PEM ({words})"


def _unreadable(file: str) -> str:
    try:
        with Path(file).open("rb"):
            return ""
    except OSError as error:
        return _words(error)


def tls_fault(options: RedisOptions) -> str:
    """Return why TLS to this Redis cannot be set up, with the setting to blame; empty if it can, or is not wanted."""
    if not options.url.startswith("rediss"):
        return ""
    try:
        redis_tls_context(options.ca_file, options.cert_file, options.key_file)
    except RedisUrlError as error:
        return str(error)
    return ""


def _no_password() -> str:
    # Without this OpenSSL would ask for it on the terminal.
    raise ValueError("the key is encrypted, and there is no setting for its password")


def _words(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)

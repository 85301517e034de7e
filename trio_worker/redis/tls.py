"""Edge. TLS for ``rediss://``: whom we trust, and the certificate that the server may ask us for."""

from __future__ import annotations

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
            setting = f"redis.cert_file: {cert_file}" + (f", redis.key_file: {key_file}" if key_file else "")
            raise RedisUrlError(f"{setting}: {_words(error)}") from None
    return context


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

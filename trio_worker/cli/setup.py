"""Edge. Builds the composer and the relay from the settings, or prints every fault and exits with 78."""

from __future__ import annotations

import ssl

from attrs import evolve

from trio_worker.cli.exit_codes import MISCONFIGURED
from trio_worker.cli.output import refuse
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.jobs.domain import one_spelling
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer, ComposerFaults, open_composer, sender_needs_smtputf8
from trio_worker.records import frozen
from trio_worker.settings.reader import Settings
from trio_worker.smtp.relay import Relay, tls_context


@frozen
class MailSetup:
    """The email types, and the composer that makes mails of them."""

    catalogue: Catalogue
    composer: Composer


def read_mail_setup(settings: Settings) -> MailSetup:
    """Read and compile all templates, or print every fault and exit with 78."""
    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        refuse(MISCONFIGURED, *map(str, catalogue.faults))
    composer = open_composer(settings.mail, catalogue)
    if isinstance(composer, ComposerFaults):
        refuse(MISCONFIGURED, *map(str, composer.faults))
    return MailSetup(catalogue, composer)


def relay_of(settings: Settings) -> Relay:
    """Return the relay of the settings, with its certificates loaded, or exit with 78."""
    try:
        context = tls_context(settings.smtp)
    except (OSError, ssl.SSLError) as error:
        refuse(MISCONFIGURED, f"smtp.ca_file: {settings.smtp.ca_file}: {error}")
    host = settings.smtp.host
    # IDNA 2008: Python would ask for another host, of IDNA 2003, when it checks the certificate.
    smtp = settings.smtp if host.isascii() else evolve(settings.smtp, host=one_spelling(host))
    return Relay(smtp, settings.smtp_timeouts, context, sender_needs_smtputf8(settings.mail))

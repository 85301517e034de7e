"""Edge. ``config check``: reads the configuration and the files that it names, and prints every fault.

Apart from the other commands of ``config``, because only it needs the templates.
"""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from trio_worker.cli.exit_codes import MISCONFIGURED, OK
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import refuse_without_configuration
from trio_worker.cli.output import print_json
from trio_worker.cli.setting_warnings import warnings_of
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.mail.options import MailOptions
from trio_worker.printing import say
from trio_worker.redis.tls import tls_fault
from trio_worker.settings.reader import (
    SettingFault,
    SettingFaults,
    Settings,
    config_path,
    read_settings,
)
from trio_worker.settings.sources import in_order
from trio_worker.telemetry.number_words import counted

# A header or link with longer values may be too long for a line.
_PLAIN_CHARS = 200


def check_config(
    *,
    strict: Annotated[bool, Parameter(negative=(), help="Also exit with 78 if there are only warnings.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Check configuration, secrets and templates, and print all problems at once. Exits with 78 if there are any."""
    path = config_path(config, os.environ)
    refuse_without_configuration(path)
    read = read_settings(path, os.environ)
    faults, settings = (list(read.faults), read.settings) if isinstance(read, SettingFaults) else ([], read)
    warnings = warnings_of(config, settings) if settings is read else []
    # What else the settings name is looked at even if they have faults: all faults are told at once.
    faults = in_order([*faults, *([] if settings is None else _faults_beyond(settings))])
    name = str(path) if path else "defaults and environment"
    is_sound = not faults and not (strict and warnings)
    if as_json:
        print_json(
            Document.CONFIG_CHECK,
            {"file": name, "ok": is_sound, "problems": list(map(str, faults)), "warnings": list(map(str, warnings))},
        )
        return OK if is_sound else MISCONFIGURED
    for warning in warnings:
        say(f"warning  {warning}")
    for fault in faults:
        say(str(fault))
    if not is_sound:
        say(counted(len(faults) or len(warnings), "problem"))
        return MISCONFIGURED
    say(f"ok  {name}")
    return OK


def _faults_beyond(settings: Settings) -> list[SettingFault]:
    """Return the faults in other files that the settings name: templates and certificates."""
    faults = _faults_of_templates(settings) if _may_break_templates(settings.mail) else []
    if of_redis := tls_fault(settings.redis):
        setting = of_redis.partition(":")[0]
        faults.append(SettingFault(settings.origins.get(setting, "default"), of_redis))
    return faults + (_faults_of_authorities(settings) if settings.smtp.ca_file else [])


def _may_break_templates(mail: MailOptions) -> bool:
    """Whether sample mails may fail: with built-in templates and plain values the tests have made all of them."""
    values = (mail.sender, mail.envelope_from, mail.message_id_domain, mail.frontend_url)
    return bool(mail.template_dirs) or not all(each.isascii() and len(each) <= _PLAIN_CHARS for each in values)


def _faults_of_templates(settings: Settings) -> list[SettingFault]:
    # Imported here, because the library of templates is a third of this command.
    from trio_worker.mail.composer import ComposerFaults, open_composer  # noqa: PLC0415

    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        return [SettingFault(each.path, each.reason) for each in catalogue.faults]
    composer = open_composer(settings.mail, catalogue)
    found = composer.faults if isinstance(composer, ComposerFaults) else ()
    return [SettingFault(each.path, each.reason) for each in found]


def _faults_of_authorities(settings: Settings) -> list[SettingFault]:
    # Imported here, because OpenSSL is a tenth of this command, and few relays have an authority of their own.
    from trio_worker.smtp.relay import tls_context  # noqa: PLC0415

    try:
        tls_context(settings.smtp)
    except OSError as error:
        message = f"smtp.ca_file: {settings.smtp.ca_file}: {error}"
        return [SettingFault(settings.origins.get("smtp.ca_file", "default"), message)]
    return []

"""Edge. ``schema``: the JSON Schema of a job, for producers in any language."""

from __future__ import annotations

import json

from trio_worker.cli.exit_codes import MISCONFIGURED, OK
from trio_worker.cli.flags import ConfigFile
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import refuse
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.jobs.json_schema import job_schema
from trio_worker.printing import say_text


def schema(*, config: ConfigFile = None) -> int:
    """Print the JSON Schema (draft 2020-12) of a job, including your own email types."""
    catalogue = read_catalogue(load_settings(config).mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        refuse(MISCONFIGURED, *map(str, catalogue.faults))
    say_text(json.dumps(job_schema(catalogue.types), indent=2, ensure_ascii=False))
    return OK

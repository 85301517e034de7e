"""Edge. ``schema``: what a job may say, for producers in any language."""

from __future__ import annotations

from trio_worker.catalogue import CatalogueFaults, read_catalogue
from trio_worker.cli.surroundings import MISCONFIGURED, OK, ConfigFile, load_settings, print_json, refuse
from trio_worker.schema import job_schema


def schema(*, config: ConfigFile = None) -> int:
    """Print the JSON Schema (draft 2020-12) of a job, your own email types included."""
    catalogue = read_catalogue(load_settings(config).mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        refuse(MISCONFIGURED, *map(str, catalogue.faults))
    print_json(job_schema(catalogue.types))
    return OK

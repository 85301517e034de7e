"""Edge. ``metrics show``: the metrics of a running worker, or the list of all metrics."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import App, Parameter
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from trio_worker.cli.exit_codes import OK, UNREACHABLE, USAGE
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import print_json, refuse
from trio_worker.printing import complain, say
from trio_worker.records import frozen
from trio_worker.telemetry.metric_table import TABLE
from trio_worker.telemetry.options import split_address
from trio_worker.telemetry.probe import addresses_of, ask

metrics = App(
    name="metrics", help="Metrics of a running worker, or a list of all metrics: show.", help_format="plaintext"
)

# The buckets of a histogram are for PromQL; people read its count and sum.
_BUCKET = "_bucket"


@frozen
class Scrape:
    """The metrics of the worker at one address; if none answers, no families and the reason in ``trouble``."""

    address: str
    families: tuple[Metric, ...]
    trouble: str = ""


@metrics.command(name="show")
def show_metrics(
    *,
    list_: Annotated[bool, Parameter(name=["--list"], negative=(), help="List all metrics; asks no worker.")] = False,
    address: Annotated[
        str, Parameter(help="Address of the worker: HOST:PORT or unix:PATH; default: metrics.listen.")
    ] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Print the metrics of the worker at metrics.listen; without one, list all metrics. 69 if none answers."""
    if list_:
        return _show_table(as_json=as_json)
    if address:
        listen, folder = address, ""
        try:
            split_address(address)
        except ValueError as error:
            refuse(USAGE, f"--address: {error}")
    else:
        settings = load_settings(config)
        listen, folder = settings.metrics.listen, settings.queue.journal_dir
    addresses = addresses_of(listen, folder)
    if not listen and not addresses:
        complain("metrics.listen is empty, so no worker can be asked. This is the list of all metrics:")
        return _show_table(as_json=as_json)
    scrapes = [scrape(each) for each in addresses]
    if not scrapes:
        complain(f"no worker has written its address in {folder or '.'}")
        return UNREACHABLE
    answered = [each for each in scrapes if not each.trouble]
    if as_json:
        print_json(Document.METRICS, [_document(each) for each in answered])
    else:
        for each in answered:
            say(f"# {each.address}", *_lines(each))
    for each in scrapes:
        if each.trouble:
            complain(each.trouble)
    return OK if len(answered) == len(scrapes) else UNREACHABLE


def scrape(address: str) -> Scrape:
    """Ask a worker for its metrics; raises nothing, whatever answers."""
    status, text = ask(address, "/metrics")
    if status != 200:
        return Scrape(address, (), text if not status else f"{address}: answered {status}")
    try:
        families = tuple(text_string_to_metric_families(text))
    except ValueError:
        families = ()
    return Scrape(address, families, "" if families else f"{address}: the answer has no metrics")


def _lines(scraped: Scrape) -> Iterator[str]:
    for sample in _samples(scraped):
        labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
        named = f"{sample.name}{{{labels}}}" if labels else sample.name
        yield f"{named} {sample.value:.15g}"


def _samples(scraped: Scrape) -> Iterator[Any]:
    return (each for family in scraped.families for each in family.samples if not each.name.endswith(_BUCKET))


def _document(scraped: Scrape) -> dict[str, Any]:
    families = [
        {
            "name": family.name,
            "type": family.type,
            "says": family.documentation,
            "samples": [
                {"name": each.name, "labels": each.labels, "value": each.value if math.isfinite(each.value) else None}
                for each in family.samples
            ],
        }
        for family in scraped.families
    ]
    return {"address": scraped.address, "metrics": families}


def _show_table(*, as_json: bool) -> int:
    if as_json:
        print_json(
            Document.METRIC,
            [
                {"name": each.exported, "type": each.kind.value, "labels": each.labels, "says": each.help_text}
                for each in TABLE
            ],
        )
        return OK
    for each in TABLE:
        say(f"{each.exported}  {each.kind.value}")
        for text in filter(None, (each.help_text, each.label_words)):
            say(*textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="  "))
    return OK

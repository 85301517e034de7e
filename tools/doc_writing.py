"""Write the generated files: conf/*, docs/configuration.md and docs/metrics.md; a test compares them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trio_worker.settings.schema import schema_text  # noqa: E402
from trio_worker.settings.text import dev_text, production_text, settings_reference  # noqa: E402
from trio_worker.telemetry import metric_table  # noqa: E402  the path comes first

for name, text in {
    "conf/dev.toml": dev_text(),
    "conf/production.toml": production_text(),
    "conf/trio_worker.schema.json": schema_text(),
    "docs/configuration.md": settings_reference(),
    "docs/metrics.md": metric_table.metrics_reference(),
}.items():
    (ROOT / name).write_text(text, encoding="utf-8")
    print(name)

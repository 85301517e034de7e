"""The real SpamAssassin finds nothing in the built-in mails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.servers.debian import debian_image, run_in_layers
from trio_worker.jobs.email_type import Catalogue
from trio_worker.jobs.job import sample_jobs
from trio_worker.mail.composer import Composer, Mail, open_composer
from trio_worker.mail.options import MailOptions

pytestmark = pytest.mark.slow


def test_no_rule_gives_points(servers_folder: Path, tmp_path: Path, catalogue: Catalogue) -> None:
    """Not the colour of the preheader either. Rules that would ask the network are off."""
    composer = open_composer(MailOptions(frontend_url="https://app.example.com"), catalogue)
    assert isinstance(composer, Composer)
    mails = {}
    for name, spec in catalogue.types.items():
        for number, job in enumerate(sample_jobs(spec)):
            mail = composer.compose(job, "sample", 1_790_000_000.0)
            assert isinstance(mail, Mail)
            mails[f"/mails/{name}-{number}"] = mail.content(eight_bit=True)
    image = debian_image(servers_folder, "spamassassin", "spamassassin")
    printed = run_in_layers(image, tmp_path, mails, "cd /mails && for mail in *; do spamassassin -t -L <$mail; done")

    assert printed.count("Content analysis details") == len(mails)
    assert "HTML_MESSAGE" in printed
    assert [line for line in printed.splitlines() if re.match(r" *(0\.[1-9]|[1-9]\d*\.\d) [A-Z]", line)] == []

"""Pure. Options of mails and of single email types. A module by itself, so that no template is needed to read them."""

from __future__ import annotations

from attrs import field

from trio_worker.option import METADATA_KEY, Option, option
from trio_worker.records import frozen


@frozen
class TypeOptions:
    """Options of one email type (config section ``[mail.types.<type>]``)."""

    max_age_seconds: float | None = option(
        None,
        "Maximum age of a mail of this type, for example until its link expires. An older mail is dead.",
        minimum=1,
    )
    on_uncertain: str = option(
        "",
        "As mail.on_uncertain, for this email type; empty: the value of mail.on_uncertain.",
        choices=("", "retry", "hold"),
    )
    max_job_bytes: int | None = option(
        None, "Maximum size of a job of this type. Only queue.max_job_bytes limits it if it is not set.", minimum=1
    )


# A job of a few fields needs some hundred bytes, one with figures some thousand.
_MAX_JOB_BYTES = 65_536
_TYPES = {
    "Registration": TypeOptions(max_age_seconds=7200.0, max_job_bytes=_MAX_JOB_BYTES),
    "ResetPassword": TypeOptions(max_age_seconds=3600.0, max_job_bytes=_MAX_JOB_BYTES),
    "EmailChange": TypeOptions(max_age_seconds=7200.0, max_job_bytes=_MAX_JOB_BYTES),
    "WeeklyRecap": TypeOptions(max_job_bytes=_MAX_JOB_BYTES),
    "MonthlyRecap": TypeOptions(max_job_bytes=_MAX_JOB_BYTES),
    "YearlyRecap": TypeOptions(max_job_bytes=_MAX_JOB_BYTES),
}


@frozen
class MailOptions:
    """Sender, links and templates of the mails (config section ``[mail]``)."""

    sender: str = option(
        "DimDim Health <no-reply@example.com>", "From header of all mails: Name <address>.", key="from"
    )
    envelope_from: str = option("", "Envelope sender address, which gets the bounces; empty: the address of mail.from.")
    frontend_url: str = option("http://localhost:8081", "Base URL of the links in mails, without a final slash.")
    message_id_domain: str = option("", "Domain of the Message-ID headers; empty: the domain of mail.from.")
    template_dirs: tuple[str, ...] = option(
        (),
        "Folders of your own templates, relative to this file. Later ones override earlier and built-in ones.",
    )
    on_uncertain: str = option(
        "retry",
        "Action for a mail that may have been accepted: retry sends it again, hold leaves it to a person.",
        choices=("retry", "hold"),
    )
    types: dict[str, TypeOptions] = field(
        factory=_TYPES.copy, metadata={METADATA_KEY: Option("What differs for single email types.")}
    )

    @property
    def budgets(self) -> dict[str, int]:
        """The largest job of each email type that has a limit of its own, in bytes."""
        return {name: own.max_job_bytes for name, own in self.types.items() if own.max_job_bytes is not None}

"""Pure. What a refusal speaks of: this mail, a recipient, us, our rate, our connections, our account, or the session.

One table of known replies. The first row that fits decides; the user's rules (`ReplyRule`, config ``[[replies]]``) come
before it. A reply that no row knows is taken by its stage and its code, as RFC 5321 has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trio_worker.records import frozen
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.worker.reply_rule import ReplyClass, ReplyRule


@frozen
class Classified:
    """The class of one reply, and which row gave it.

    ``is_known``: a row says so, not the code alone. ``is_doubtful``: the refusal names a sender or a recipient, so it
    may speak of this mail alone until other mails get it too. ``names_recipient``: its words are known to speak of us,
    but a recipient is in them, so one alone proves nothing. ``source`` is where the row is from.
    """

    reply_class: ReplyClass
    is_known: bool = True
    is_doubtful: bool = False
    source: str = ""
    names_recipient: bool = False


@frozen
class _Row:
    """A row of the table: what is given must fit; ``text`` and ``enhanced`` are patterns."""

    reply_class: ReplyClass
    source: str
    text: str = ""
    codes: Sequence[int] = ()
    enhanced: str = ""
    stages: Sequence[Stage] = ()
    is_doubtful: bool = False

    def fits(self, reply: Reply) -> bool:
        return (
            (not self.stages or reply.stage in self.stages)
            and (not self.codes or reply.code in self.codes)
            and (not self.enhanced or re.fullmatch(self.enhanced, reply.enhanced) is not None)
            and (not self.text or re.search(self.text, reply.text, re.IGNORECASE) is not None)
        )


_MAIL, _RECIPIENT, _US = ReplyClass.MAIL, ReplyClass.RECIPIENT, ReplyClass.US
_RATE, _CONCURRENCY, _STANDING = ReplyClass.RATE, ReplyClass.CONCURRENCY, ReplyClass.STANDING

# What the providers document, or reports of their users quote; then the words that many servers share.
_ROWS = (
    # The words of another server, which whoever owns the address can choose, say nothing of us.
    _Row(
        _RECIPIENT,
        "Postfix, Exim: an address that was asked for elsewhere",
        r"\A(?![\s\S]*\bsender (verify|address))[\s\S]*"
        r"(\bunverified address\b|\bcallout verification failed|\bsaid: [45][0-9]{2}\b)",
        stages=(Stage.RCPT,),
    ),
    # Providers whose codes or words would else be taken for something different.
    _Row(_STANDING, "Gmail: limits for sending", enhanced=r"[45]\.4\.5"),
    _Row(_STANDING, "Gmail: limits for sending", r"daily (user )?(sending|smtp relay) (limit|quota)"),
    _Row(_RATE, "Google Workspace SMTP relay", r"peak smtp relay limit"),
    _Row(_CONCURRENCY, "Microsoft 365: three connections", r"sender thread limit|concurrent connections? limit"),
    _Row(_STANDING, "Microsoft 365: quota of a mailbox", r"SubmissionQuotaExceeded"),
    _Row(_STANDING, "Microsoft 365: a mailbox that sent spam", r"OutboundSpamException"),
    _Row(_STANDING, "Microsoft 365: recipients a day", enhanced=r"5\.1\.90"),
    _Row(_STANDING, "Microsoft 365: limits of a tenant", enhanced=r"5\.7\.(232|233|236|705|708|750)"),
    _Row(_STANDING, "Microsoft 365: a blocked sender", enhanced=r"5\.7\.50[1-3]"),
    _Row(_US, "Microsoft 365: the sender is not ours", r"SendAsDenied|permissions to send as", is_doubtful=True),
    _Row(_US, "Microsoft 365: a banned address or sender", r"\bbanned (sending ip|sender)\b"),
    _Row(_US, "Microsoft 365: the sender is not ours", enhanced=r"5\.7\.60", is_doubtful=True),
    _Row(_US, "Exchange: no relaying", enhanced=r"5\.7\.54", is_doubtful=True),
    _Row(_US, "Gmail, Outlook.com: authentication of the domain", enhanced=r"[45]\.7\.(2[5-79]|3[02]|515)"),
    _Row(_STANDING, "Amazon SES: quota", r"daily message quota exceeded"),
    _Row(_RATE, "Amazon SES: sending rate", r"maximum sending rate exceeded"),
    _Row(_STANDING, "Amazon SES: sending is paused", r"sending (is )?(paused|suspended|disabled)"),
    _Row(_STANDING, "Amazon SES: sandbox", r"identit\w+ failed the check|address is not verified", is_doubtful=True),
    _Row(_US, "Amazon SES: the user may not send", r"not authorized to perform"),
    _Row(_STANDING, "Mailgun: sandbox", r"sandbox (sub)?domains?", is_doubtful=True),
    _Row(_STANDING, "Mailgun: limit of a domain", r"domain .*is not allowed to send"),
    _Row(_STANDING, "SendGrid: no credits", r"maximum credits exceeded|credits? (exhausted|exceeded)"),
    _Row(_STANDING, "Postmark: no credits", r"\bout of credits\b"),
    _Row(_US, "SendGrid: no login", r"\bunauthenticated senders? not allowed"),
    _Row(_US, "Google Workspace SMTP relay: not registered", r"\binvalid credentials for relay\b"),
    _Row(_US, "Brevo: the address is not registered", r"\bunauthori[sz]ed ip\b"),
    _Row(_STANDING, "Brevo: the account is not activated", r"\bactivate your (smtp )?account\b"),
    _Row(_STANDING, "Zoho: the account is blocked", r"\bunusual sending activity\b"),
    _Row(_STANDING, "cPanel: mails of a domain in an hour", r"\bexceeded the max (e-?mails|defers and failures)\b"),
    _Row(_RATE, "Exim: ratelimit", r"\bsender rate overlimit\b"),
    _Row(_US, "SendGrid: the sender is not verified", r"verified sender identity", is_doubtful=True),
    _Row(_US, "Postmark: the sender is not verified", r"sender signature", is_doubtful=True),
    _Row(_STANDING, "Postmark: the account is not approved", r"pending approval"),
    _Row(_STANDING, "a quota of the relay", r"\brelay(ing)? quota"),
    # A sender may be an unknown user or have an unknown domain as well; Postfix says so at RCPT.
    _Row(
        _US,
        "Postfix: sender restrictions",
        r"\bsender address (rejected|\S+ blocked)",
        is_doubtful=True,
    ),
    # One address. Before the words for quotas and limits, which a mailbox may have as well.
    _Row(_RECIPIENT, "Gmail: a mailbox with much mail", r"receiving mail (too|at a rate)"),
    _Row(_RECIPIENT, "greylisting", r"gr[ae]y-?list"),
    _Row(_RECIPIENT, "RFC 3463: address and mailbox", enhanced=r"[45]\.(1\.(1|2|3|6|10)|2\.[0-4])"),
    _Row(_RECIPIENT, "RFC 5321: too many recipients", enhanced=r"[45]\.5\.3", stages=(Stage.RCPT,)),
    _Row(
        _RECIPIENT,
        "an address that is not known",
        # RFC 5321 gives every 550 the words "requested action not taken: mailbox unavailable": they say nothing.
        r"unroute?able|(unknown|no such|invalid|nonexistent) (local )?(user|recipient|mailbox|address)"
        r"|(user|recipient) unknown"
        r"|\b(user|recipient|mailbox|address)\b.{0,60}"
        r"\b(unknown|not found|(?<!action not taken: mailbox )unavailable|disabled|inactive|does(n't| not) exist)",
        stages=(Stage.RCPT, Stage.FINAL),
    ),
    _Row(
        _RECIPIENT,
        "a full mailbox",
        r"\b(mailbox|inbox)\b.{0,60}\b(full|over ?quota|quota|storage|limit)"
        r"|\b(user|recipient)\b.{0,30}\b(is full|over ?quota)"
        r"|\btoo (many|much) (messages|e?-?mails?) (in|for|to) ((this|the|that) )?"
        r"(mailbox|inbox|recipient|user|address)"
        r"|\b(recipient|mailbox)( \S*@\S*)? has (exceeded|reached)",
        stages=(Stage.RCPT, Stage.FINAL),
    ),
    # This mail.
    _Row(_MAIL, "RFC 3463: size", enhanced=r"5\.3\.4", stages=(Stage.MAIL, Stage.DATA, Stage.FINAL)),
    _Row(_MAIL, "Courier: size", codes=(534,), stages=(Stage.MAIL,)),
    _Row(
        _MAIL,
        "size",
        r"(message|mail|e-?mail|size|content).{0,30}\b(too (large|big)|exceeds|exceeded)\b.{0,40}\bsize|"
        r"\b(message|mail|e-?mail|content)( size)? (is )?too (large|big)|(message|fixed maximum) size (limit|exceed)",
        codes=(500, 501, 523, 534, 550, 552, 554),
        stages=(Stage.MAIL, Stage.DATA, Stage.FINAL),
    ),
    _Row(
        _MAIL,
        "what a mail is made of",
        r"\b(mime|headers?|attachments?|parts|lines?|hops?)\b.{0,20}\b(limit|count)\b",
        stages=(Stage.DATA, Stage.FINAL),
    ),
    # May be a mailbox that is full or closed, or our account.
    _Row(
        _STANDING,
        "a quota of somebody",
        r"^(?!.*\b(send|sending|sender|relay|submission|daily|hourly|monthly)\b).*\bquota\b",
        codes=(552,),
        stages=(Stage.RCPT,),
        is_doubtful=True,
    ),
    _Row(
        _STANDING,
        "an account of somebody is closed",
        r"\bthis account\b.{0,60}\b(suspended|disabled|blocked|deactivated|locked|expired|closed|restricted)",
        stages=(Stage.RCPT,),
        is_doubtful=True,
    ),
    # Too many at once, too fast, too much.
    _Row(
        _CONCURRENCY,
        "too many connections",
        r"too many (concurrent |simultaneous |open |smtp )*(connections|sessions)"
        r"|\b(connections?|sessions?) (count )?(limit|quota)|concurrent (connections|sessions)",
    ),
    _Row(_STANDING, "a quota of a day", r"\b(daily|monthly|per (day|month)|24 ?h(ours?)?)\b.{0,60}\b(limit|quota)"),
    _Row(
        _STANDING,
        "a quota is used up",
        r"\b(sending|send|sender|relay|account|submission|daily|monthly|plan|mail) (message |messages |email |mail )?"
        r"(limit|quota|allowance)s?\b"
        r"|\b(limit|quota|allowance)s? (has been |was |is )?(exceeded|reached|exhausted|used up)"
        r"|\b(exceeded|reached|over) (your|its|the|our) ([a-z]+ ){0,3}(limit|quota|allowance)\b"
        r"|\b(exceeded|reached) your messaging limits\b"
        r"|\blimit\b.{0,80}\btry again later",
        codes=tuple(range(500, 600)),
    ),
    _Row(
        _RATE,
        "too fast",
        r"throttl|\b(rate|ratelimit|sending) limit|rate-?limit|sending rate|message rate|slow down"
        r"|too (fast|quickly|frequent)"
        r"|too (many|much) (messages|e?-?mails?|mails?|recipients (from|per|in))"
        r"|\b(limit|quota)s? (has been |was |is )?(exceeded|reached)|\b(hourly|minute)\b.{0,30}\b(limit|quota)",
    ),
    _Row(
        _STANDING,
        "an account that is closed",
        r"\b(your|this|sending|smtp) (account|service|plan|subscription)\b.{0,60}"
        r"\b(suspended|disabled|blocked|deactivated|locked|expired|closed|restricted|not (yet )?(activ|approved))",
    ),
    _Row(
        _STANDING,
        "Amazon SES, Mailgun: the account is suspended",
        r"^(message rejected: )?account (is )?(suspended|disabled)",
        stages=(Stage.MAIL, Stage.DATA, Stage.FINAL),
    ),
    # Us. A relay that first wants a login says so before it says anything of an address.
    _Row(_US, "RFC 4954: a login is required", codes=(530, 535, 538)),
    _Row(_US, "RFC 4954: a password has to be changed", codes=(432,)),
    _Row(
        _US,
        "RFC 4954: the login cannot be checked now",
        codes=(454,),
        stages=(Stage.MAIL, Stage.DATA, Stage.FINAL),
    ),
    _Row(
        _US,
        "a login is required",
        r"authenticat\w* (is )?(first|required|needed)|must (first )?(authenticate|log ?in|issue)"
        r"|auth(entication)? required|(please|need to) (authenticate|log ?in)|not (authenticated|logged in)",
    ),
    _Row(
        _US,
        "Postfix: client and HELO restrictions",
        r"(helo|ehlo) command rejected|client host( \S+)? (rejected|blocked)|client host \S+ blocked"
        r"|cannot find your (reverse )?host ?name",
    ),
    _Row(_US, "the name in EHLO", r"\b(helo|ehlo)\b.{0,60}\b(invalid|rejected|required|fully.qualified|not valid)"),
    _Row(
        _US,
        "our address on a block list",
        r"\b(your|client|sending) (ip|host|network|server|mail ?server|address)\b.{0,60}"
        r"\b(block|black ?list|deny ?list|listed|reputation|rejected|not (authorized|allowed|permitted))"
        r"|\b(ip|host|address)\b.{0,30}\b(blacklisted|blocklisted|has (a )?(poor|bad|low) reputation)"
        r"|\b(reverse dns|ptr record|rdns)\b",
    ),
    _Row(
        _US,
        "a sender that is not ours",
        r"sender address rejected|not owned by user|not (allowed|authori[sz]ed) to send (as|from)|envelope sender"
        r"|\b(sender|from|return.path)\b.{0,60}\b(not (owned|authorized|authorised|allowed|permitted|verified|match)|"
        r"mismatch|denied|rejected|unverified|does(n't| not) match)|sender verify",
        is_doubtful=True,
    ),
    _Row(_US, "RFC 3463: a bad sender address", enhanced=r"[45]\.1\.[78]", is_doubtful=True),
    _Row(
        _US,
        "no relaying",
        r"\brelay(ing)? (access )?(is )?(denied|(dis|not )allowed|prohibited|forbidden|disabled)"
        r"|\brelay(ing)? (access )?(is )?not (permitted|authorized)"
        r"|(unable|not permitted|not allowed|refuse|refuses|refused|do not|don't|may not|cannot|can't) (to )?relay"
        r"|not (a|an) (open )?relay|\bno relaying\b|relay (not permitted|denied)",
        is_doubtful=True,
    ),
)  # fmt: skip

# 552 at RCPT is a full mailbox, which RFC 5321 4.5.3.1.10 asks clients to treat as 452; elsewhere it is about the size.
STORAGE_CODE = 552
# A reply to RCPT with an address in it, or with the words of Postfix.
_RECIPIENT_WORDS = re.compile(r"\S@\S|\brecipient address rejected\b", re.IGNORECASE)
_DEFAULTS = {
    Stage.MAIL: ReplyClass.SESSION,
    Stage.RCPT: ReplyClass.RECIPIENT,
    Stage.DATA: ReplyClass.MAIL,
    Stage.FINAL: ReplyClass.MAIL,
}


def classify(reply: Reply, rules: Sequence[ReplyRule] = ()) -> Classified:
    """Return what a refusal (4xx or 5xx) speaks of; the user's ``rules`` go first."""
    for number, rule in enumerate(rules, 1):
        if rule.fits(reply):
            return Classified(rule.reply_class, source=f"[[replies]] number {number}")
    for row in _ROWS:
        if row.fits(reply):
            return Classified(
                row.reply_class,
                is_doubtful=row.is_doubtful,
                source=row.source,
                names_recipient=reply.stage is Stage.RCPT and _RECIPIENT_WORDS.search(reply.text) is not None,
            )
    if reply.stage is Stage.MAIL and reply.code == STORAGE_CODE:
        return Classified(ReplyClass.MAIL, source="RFC 5321: storage")
    return Classified(_DEFAULTS.get(reply.stage, ReplyClass.SESSION), is_known=False, source="its code and stage")


def is_for_good(reply: Reply, classified: Classified) -> bool:
    """Whether a refusal can never become an acceptance of this mail for this recipient."""
    if not reply.is_permanent or (reply.stage is Stage.RCPT and reply.code == STORAGE_CODE):
        return False
    match classified.reply_class:
        case ReplyClass.MAIL | ReplyClass.RECIPIENT | ReplyClass.SESSION:
            return True
        case _:
            return classified.is_doubtful

"""Settings: every source, every fault at once with its place, and secrets that stay secret."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.settings.digest import digest_of
from trio_worker.settings.reader import KEYS, SettingFaults, Settings, config_path, read_settings
from trio_worker.settings.sources import SECRET_LIMIT_BYTES, SettingFault, in_order, key_lines, variable_of
from trio_worker.settings.text import production_text

SECRET = "s3same-0pen"


def read(text: str, tmp_path: Path, environ: dict[str, str] | None = None, **flags: object) -> Settings | SettingFaults:
    path = tmp_path / "worker.toml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path, environ or {}, flags)


def good(text: str, tmp_path: Path, environ: dict[str, str] | None = None, **flags: object) -> Settings:
    settings = read(text, tmp_path, environ, **flags)
    assert isinstance(settings, Settings), [str(fault) for fault in settings.faults]
    return settings


def bad(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> list[str]:
    settings = read(text, tmp_path, environ)
    assert isinstance(settings, SettingFaults)
    return [str(fault).replace(str(tmp_path), ".") for fault in settings.faults]


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    """And each value knows where it comes from."""
    text = '[queue]\nname = "from_file"\nlease_seconds = 7\n[smtp.pool]\nmax_size = 3\n'
    environ = {"TRIO_WORKER__QUEUE__NAME": "from_environment", "TRIO_WORKER__SMTP__POOL__MAX_SIZE": "4"}
    settings = read_settings(_file(tmp_path, text), environ, {"queue.name": "from_flag"})
    assert isinstance(settings, Settings)

    assert settings.queue.name == "from_flag"
    assert settings.smtp_pool.max_size == 4
    assert settings.queue.lease_seconds == 7.0
    assert settings.retry.max_attempts == 30
    assert settings.origins["queue.name"] == "flag queue.name"
    assert settings.origins["smtp.pool.max_size"] == "TRIO_WORKER__SMTP__POOL__MAX_SIZE"
    assert settings.origins["queue.lease_seconds"].endswith("worker.toml:3")
    assert "retry.max_attempts" not in settings.origins


# A production file with values of one's own, which needs only a Redis.
PRODUCTION = 'profile = "production"\nmail.from = "a@shop.dev"\nmail.frontend_url = "https://shop.dev"\n'


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "worker.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_all_faults_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    """So a person can correct the file at once."""
    faults = bad(
        'number_workers = 0\nprofile = "test"\n[queue]\nlease_second = 5\n[smtp]\nport = "25"\ntls = "none"\n'
        "[smtp.pool]\nmax_size = 1.5\n[retry]\ncap_seconds = nan\n",
        tmp_path,
        {"TRIO_WORKER__LOG__LEVEL": "loud"},
    )

    assert faults == [
        "./worker.toml:1  number_workers: must be at least 1",
        "./worker.toml:2  profile: must be one of dev, production",
        "./worker.toml:4  queue.lease_second: no such key. Did you mean queue.lease_seconds?",
        "./worker.toml:6  smtp.port: must be a whole number",
        "./worker.toml:9  smtp.pool.max_size: must be a whole number",
        "./worker.toml:11  retry.cap_seconds: must be a finite number",
        "TRIO_WORKER__LOG__LEVEL  log.level: must be one of debug, info, warning, error",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[smtp]\nhost = "mail.example.com"\n', "smtp.allow_real_relay = true"),
        (PRODUCTION, "refuses the embedded server"),
        (
            f'{PRODUCTION}[redis]\nurl = "redis://h"\n[capture]\nlisten = "127.0.0.1:1"\n',
            "mails would not be delivered",
        ),
        (
            '[smtp]\nhost = "h.example"\nallow_real_relay = true\ntls = "none"\nusername = "u"\n',
            "the login would be sent unencrypted",
        ),
        ('[smtp]\nonly_to = "("\n', "not a regular expression"),
        ('[smtp]\nhost = "a b"\n', "must be a name or an address"),
        ('[queue]\nname = "{jobs}"\n', "without spaces, braces"),
        ('[queue]\nname = ""\n', "without spaces, braces"),
        ("[retry]\nbase_seconds = 10\ncap_seconds = 5\n", "above retry.cap_seconds"),
        ("[smtp.pool]\nmin_idle = 11\n", "above smtp.pool.max_size"),
        ("[history]\ndays = 3\n", "history.days: needs history.key_file"),
        ('[mail]\nfrom = "nobody"\n', "mail.from"),
        ('[mail]\nenvelope_from = "a@b@c"\n', "mail.envelope_from"),
        ('[mail]\nmessage_id_domain = "a b"\n', "mail.message_id_domain"),
        ('[mail]\nfrontend_url = "localhost"\n', "begins with http"),
        ('[mail]\ntemplate_dirs = ["nowhere"]\n', "nowhere is not a folder"),
        ('[redis]\nurl = "http://h"\n', "must begin with redis://"),
        ('[redis]\nurl = "redis://"\n', "has no host"),
        ('[redis]\nurl = "redis://h:99999"\n', "has no host, or a port"),
        ('[redis]\nurl = "embedded:"\n', "redis.url"),
        ('[capture]\nlisten = "1025"\n', "an address and a port"),
        ("[smtp.pool]\nport = 1\n", "no such key"),
        ("smtp = 5\n", "is a section, not a key"),
        ("[mail.types.X]\nmax_age = 5\n", "no such key"),
        ("not toml", "not TOML"),
        ('[smtp]\nhost = "a\\u0000b"\n', "must not contain a NUL character"),
    ],
)
def test_each_rule_names_its_key_and_its_line(text: str, fault: str, tmp_path: Path) -> None:
    """One fault for one mistake."""
    (found,) = bad(text, tmp_path)
    assert fault in found
    assert found.startswith(("./worker.toml:", "default  "))


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ('[smtp]\nhost = "smtp.example.com"\n', ["smtp.host"]),
        ('[smtp]\nhost = "SMTP.Example.ORG."\n', ["smtp.host"]),
        ('[smtp]\nhost = "mx.test"\n', ["smtp.host"]),
        ('[smtp]\nhost = "localhost"\n', []),
        ('[smtp]\nhost = "127.0.0.1"\n', []),
        ('[smtp]\nhost = "myexample.com"\n', []),
        ('mail.envelope_from = "bounces@mail.example.com"\n', ["mail.envelope_from"]),
        ('mail.message_id_domain = "example.net"\n', ["mail.message_id_domain"]),
    ],
)
def test_a_placeholder_is_no_value_for_production(text: str, faulty: list[str], tmp_path: Path) -> None:
    """A relay on this machine is one; the names that the standards reserve for examples are nobody's."""
    read = read_settings(_file(tmp_path, f"{PRODUCTION}redis.url = 'redis://h'\n{text}"), {})

    found = read.faults if isinstance(read, SettingFaults) else ()
    assert [fault.reason.partition(":")[0] for fault in found] == faulty
    assert all("profile production" in fault.reason for fault in found)


@pytest.mark.parametrize(
    "url", ["http://localhost:8081", "https://127.0.0.1", "http://[::1]/", "https://app.example.com"]
)
def test_links_that_open_nothing_are_refused_in_production(url: str, tmp_path: Path) -> None:
    """They go to whoever reads the mail, whose machine is another one."""
    text = PRODUCTION.replace("https://shop.dev", url) + "redis.url = 'redis://h'\n"

    assert bad(text, tmp_path) == [f"./worker.toml:3  mail.frontend_url: profile production: {_links_words(url)}"]


def _links_words(url: str) -> str:
    host = urlsplit(url).hostname
    return f"links to {host} open nothing for who reads a mail: give the address of your site"


def test_the_file_that_init_writes_asks_for_ones_own_values(tmp_path: Path) -> None:
    """All of them at once; with the values of dev nothing is asked for."""
    faults = bad(production_text(), tmp_path)

    assert [fault.split()[1] for fault in faults] == ["smtp.host:", "mail.from:", "mail.frontend_url:"]


def test_a_faulty_profile_hides_no_other_fault(tmp_path: Path) -> None:
    """What neither profile allows is told, and nothing that only one of them refuses."""
    faults = bad('profile = "x"\n[smtp]\nhost = "smtp.example.com"\nonly_to = "("\n', tmp_path)

    assert [fault.split()[1] for fault in faults] == ["profile:", "smtp.only_to:"]


def test_a_rule_is_not_held_against_the_default_of_a_faulty_key(tmp_path: Path) -> None:
    """15 is above the default of max_size, but not above what was meant."""
    assert bad('[smtp.pool]\nmin_idle = 15\nmax_size = "20"\n', tmp_path) == [
        "./worker.toml:3  smtp.pool.max_size: must be a whole number"
    ]


def test_a_file_that_is_no_toml_hides_no_fault_of_the_environment(tmp_path: Path) -> None:
    """Both are told; rules between keys are not, as most keys are not known."""
    faults = bad("[[", tmp_path, {"TRIO_WORKER__SMTP__PORT": "x", "TRIO_WORKER__SMTP__HOST": "mx.shop.dev"})

    assert len(faults) == 2
    assert "not TOML" in faults[0]
    assert faults[1] == "TRIO_WORKER__SMTP__PORT  smtp.port: must be a whole number"


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """Named, with the system's reason."""
    settings = read_settings(tmp_path / "none.toml", {})
    assert isinstance(settings, SettingFaults)
    assert "No such file" in str(settings.faults[0])


def test_which_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is given, else TRIO_WORKER_CONFIG, else conf/dev.toml where there is one."""
    monkeypatch.chdir(tmp_path)
    assert config_path(None, {}) is None
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "dev.toml").write_text("")
    assert config_path(None, {}) == Path("conf/dev.toml")
    assert config_path(None, {"TRIO_WORKER_CONFIG": "x.toml"}) == Path("x.toml")
    assert config_path(Path("y.toml"), {"TRIO_WORKER_CONFIG": "x.toml"}) == Path("y.toml")


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file_without_its_last_line_feed(ending: str, tmp_path: Path) -> None:
    """Editors add one; everything else belongs to the secret."""
    secret = tmp_path / "secret"
    secret.write_bytes(f" {SECRET} {ending}".encode())
    secret.chmod(0o600)
    settings = good(f'[smtp]\ntls = "none"\nusername = "u"\npassword_file = "{secret}"\n', tmp_path)

    assert settings.smtp.password == f" {SECRET} "


def test_a_secret_may_come_from_the_environment_or_a_file_that_it_names(tmp_path: Path) -> None:
    """The environment's file beats the file's value."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    text = '[redis]\npassword = "old"\n'

    assert good(text, tmp_path, {"TRIO_WORKER__REDIS__PASSWORD": SECRET}).redis.password == SECRET
    assert good(text, tmp_path, {"TRIO_WORKER__REDIS__PASSWORD_FILE": str(secret)}).redis.password == SECRET


def test_a_credential_of_systemd_is_found(tmp_path: Path) -> None:
    """In $CREDENTIALS_DIRECTORY, under the key's name; what is set elsewhere wins."""
    (tmp_path / "smtp_password").write_text(SECRET)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert good("", tmp_path, environ).smtp.password == SECRET
    assert good('[smtp]\npassword = "other"\n', tmp_path, environ).smtp.password == "other"


@pytest.mark.parametrize("content", [b"\xff", b"x" * (SECRET_LIMIT_BYTES + 1), None])
def test_a_secret_file_that_cannot_be_used_is_a_fault(content: bytes | None, tmp_path: Path) -> None:
    """Not there, not text, or far too long."""
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    (found,) = bad(f'[redis]\npassword_file = "{secret}"\n', tmp_path)
    assert "redis.password: secret file ./secret: " in found


def test_one_secret_has_one_place(tmp_path: Path) -> None:
    """Both a value and a file are refused."""
    (found,) = bad('[smtp]\npassword = "a"\npassword_file = "b"\n', tmp_path)
    assert "set only one of them" in found


def test_a_secret_that_everybody_may_read_is_warned_of(tmp_path: Path) -> None:
    """With what to do."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    settings = good(f'[redis]\npassword_file = "{secret}"\n', tmp_path)
    assert any("chmod o-r" in str(warning) for warning in settings.warnings)


@pytest.mark.parametrize(
    ("url", "mode", "is_one_file", "warned"),
    [
        ("rediss://r.example", 0o644, False, ["redis.key_file: the private key in key.pem can be read by all users"]),
        ("rediss://r.example", 0o644, True, ["redis.cert_file: the private key in cert.pem can be read by all users"]),
        ("rediss://r.example", 0o640, False, []),
        ("redis://r.example", 0o600, True, ["redis.cert_file: is used with rediss:// only, and redis.url has no TLS"]),
    ],
)  # fmt: skip
def test_a_key_for_redis_that_everybody_may_read_or_nobody_uses_is_warned_of(
    work_folder: Path, url: str, mode: int, warned: list[str], *, is_one_file: bool
) -> None:
    """As of a password file; a certificate without its key may be read by all."""
    Path("key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    Path("cert.pem").write_text("-----BEGIN CERTIFICATE-----\n" + Path("key.pem").read_text() * is_one_file)
    for name in ("key.pem", "cert.pem"):
        Path(name).chmod(mode)
    text = f'[redis]\nurl = "{url}"\ncert_file = "cert.pem"\n' + ("" if is_one_file else 'key_file = "key.pem"\n')

    settings = good(text, work_folder)

    found = [warning.reason.removesuffix(": chmod o-r") for warning in settings.warnings]
    assert [reason for reason in found if reason.startswith("redis.")] == warned


@pytest.mark.parametrize(
    ("listen", "host", "port", "warned"),
    [
        ("127.0.0.1:1025", "127.0.0.1", 1025, False),
        ("localhost:1025", "127.0.0.1", 1025, False),
        ("0.0.0.0:1025", "127.0.0.1", 1025, False),
        ("127.0.0.1:1025", "localhost", 1025, False),
        ("127.0.0.1:1026", "127.0.0.1", 1025, True),
        ("127.0.0.1:1025", "127.0.0.2", 1025, True),
        ("", "127.0.0.1", 2525, False),
    ],
)
def test_a_catcher_that_gets_no_mail_is_warned_of(
    listen: str, host: str, port: int, tmp_path: Path, *, warned: bool
) -> None:
    """Both keys are named, for one was changed and the other forgotten."""
    text = f'[smtp]\nhost = "{host}"\nport = {port}\n[capture]\nlisten = "{listen}"\n'
    found = [str(each) for each in good(text, tmp_path).warnings if "not to this mail catcher" in str(each)]

    assert len(found) == warned
    assert all("worker.toml:5  capture.listen: " in each and "smtp.port" in each for each in found)


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("number_workers = 10\n[smtp.pool]\nmax_size = 10\n", ""),
        ("number_workers = 40\n[smtp.pool]\nmax_size = 10\n", ""),
        ("number_workers = 10\n[smtp.pool]\nmax_size = 10\npipeline_depth = 64\n", ""),
        ("[smtp.pool]\nmax_size = 20\n", "10 consumers can use 10 of the 20 connections (smtp.pool.max_size)"),
        ("number_workers = 1\n[smtp.pool]\nmax_size = 2\n", "1 consumer can use 1 of the 2 connections"),
        (
            "number_workers = 640\n[smtp.pool]\nmax_size = 10\npipeline_depth = 64\n",
            "640 consumers for 10 connections, 40,960 jobs at once; as many consumers as connections are enough",
        ),
    ],
)
def test_consumers_that_do_not_fit_the_connections_are_warned_of(text: str, warned: str, tmp_path: Path) -> None:
    """Too few to use all of them, or as many as in versions in which the number was that of jobs."""
    found = [str(each) for each in good(text, tmp_path).warnings if "number_workers" in str(each)]

    assert len(found) == bool(warned)
    assert all(warned in each for each in found)


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ('[mail]\nfrom = "hi@bücher.example"\n', []),
        ('[mail]\nfrom = "Hänse <hänse@example.com>"\n', ["worker.toml:2  mail.from: is not ASCII before the @"]),
        ('[mail]\nenvelope_from = "hänse@example.com"\n', ["worker.toml:2  mail.envelope_from: is not ASCII before"]),
    ],
)
def test_a_sender_that_few_relays_take_is_warned_of(text: str, warned: list[str], tmp_path: Path) -> None:
    """A domain beyond ASCII goes over every relay; what is before the @ needs SMTPUTF8."""
    found = [str(each) for each in good(text, tmp_path).warnings if "SMTPUTF8" in str(each)]

    assert len(found) == len(warned)
    assert all(said in each for said, each in zip(warned, found, strict=True))


def test_a_type_may_have_its_own_age_and_policy(tmp_path: Path) -> None:
    """What is not set stays as shipped: links of a password reset are dead after an hour."""
    (tmp_path / "templates" / "Invoice").mkdir(parents=True)
    text = (
        f'[mail]\ntemplate_dirs = ["{tmp_path / "templates"}"]\n'
        '[mail.types.ResetPassword]\non_uncertain = "hold"\n[mail.types.Invoice]\nmax_age_seconds = 60\n'
    )
    settings = good(text, tmp_path, {"TRIO_WORKER__MAIL__TYPES__Invoice__ON_UNCERTAIN": "hold"})
    types = settings.mail.types

    assert (types["ResetPassword"].max_age_seconds, types["ResetPassword"].on_uncertain) == (3600, "hold")
    assert (types["Invoice"].max_age_seconds, types["Invoice"].on_uncertain) == (60, "hold")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[mail.types.Registraton]\nmax_age_seconds = 60\n", "2  mail.types.Registraton: no such email type. Did you"),
        ("\n[mail.types.Registraton]\n", "2  mail.types.Registraton: no such email type. Did you mean Registration?"),
        ('[mail.types]\nInvocie.on_uncertain = "hold"\n', "2  mail.types.Invocie: no such email type. Did you mean In"),
        ("[mail.types.Qqqq]\nmax_age_seconds = 60\non_uncertain = 'hold'\n", "2  mail.types.Qqqq: no such email type"),
    ],
)
def test_options_of_a_type_that_is_none_are_a_fault(text: str, fault: str, tmp_path: Path) -> None:
    """Once for each type, with what was meant: else a typing error would leave the shipped age in force."""
    (tmp_path / "templates" / "Invoice").mkdir(parents=True)
    (found,) = bad(f"{text}[mail]\ntemplate_dirs = ['{tmp_path / 'templates'}']\n", tmp_path)

    assert fault in found
    assert found.startswith("./worker.toml:")


@pytest.mark.parametrize("dirs", ['["nowhere"]', "7"])
def test_types_are_not_judged_while_a_template_folder_is_missing(dirs: str, tmp_path: Path) -> None:
    """It may hold them: the one fault is the folder's."""
    (found,) = bad(f"[mail]\ntemplate_dirs = {dirs}\n[mail.types.Invoice]\nmax_age_seconds = 60\n", tmp_path)

    assert "mail.template_dirs" in found


def test_an_empty_table_of_a_type_says_nothing(tmp_path: Path) -> None:
    """It may be left where its last key was taken out."""
    for text in ("[mail.types]\n", "[mail.types.ResetPassword]\n"):
        assert good(text, tmp_path).mail == good("", tmp_path).mail


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_has_a_variable_and_one_sentence(key: str) -> None:
    """The variable sets that key and no other."""
    sentence = KEYS[key].option.help_text

    assert variable_of(key) == KEYS[key].variable
    assert sentence.endswith(".")
    assert sentence[0].isupper() or sentence.startswith("dev ")
    faults = read_settings(None, {KEYS[key].variable: "\x00"})
    assert isinstance(faults, SettingFaults)
    assert all(fault.place in {KEYS[key].variable, "default"} for fault in faults.faults)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    """Any file is settings or a list of faults."""
    key_lines(text)


@given(
    st.dictionaries(
        st.sampled_from([variable_of(key) for key in KEYS]),
        st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
        max_size=4,
    )
)
def test_no_environment_raises_and_each_fault_has_a_place(environ: dict[str, str]) -> None:
    """With any value of a variable."""
    read_settings_ = read_settings(None, environ)
    if isinstance(read_settings_, SettingFaults):
        assert read_settings_.faults
        assert all(fault.place for fault in read_settings_.faults)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)


@given(st.sampled_from(sorted(KEYS)), leaves)
def test_no_value_of_any_type_raises(key: str, value: object) -> None:
    """A wrong type is a fault of that key, never an exception."""
    settings = read_settings(None, {}, {key: value})
    if isinstance(settings, SettingFaults):
        assert all(str(fault) for fault in settings.faults)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'[mail]\ntemplate_dirs = ["{"a" * 300}"]', "is not a folder"),
        ('[smtp]\nhost = "mail.example.com:587"', "smtp.host: must not contain a port: set smtp.port"),
        ('[smtp]\nhost = "mail..example.com"\nallow_real_relay = true', "smtp.host: has a part between its dots"),
        (f'[smtp]\nhost = "{"x" * 70}.example.com"\nallow_real_relay = true', "smtp.host: has a part between its dots"),
        ('[smtp]\nhost = "mail..bücher.example"\nallow_real_relay = true', "smtp.host: has a domain that is not valid"),
        ('[smtp]\nhost = "☃.example"\nallow_real_relay = true', "smtp.host: has a domain that is not valid"),
        (f"number_workers = 1{'0' * 400}", "number_workers: is too large"),
        (f"[retry]\nbase_seconds = 1{'0' * 400}", "retry.base_seconds: is too large"),
        (f"number_workers = {'9' * 5001}", "not TOML"),
        ('[redis]\nurl = "redis://db?foo=bar"', "redis.url: has an option that is not known here"),
    ],
)
def test_odd_values_are_faults_and_no_tracebacks(text: str, words: str, tmp_path: Path) -> None:
    """Each named with its place."""
    assert any(words in fault for fault in bad(text + "\n", tmp_path))


def test_a_variable_that_is_no_utf_8_is_a_fault(tmp_path: Path) -> None:
    """The environment may hold any bytes."""
    assert "queue.name: must be UTF-8" in bad("", tmp_path, {"TRIO_WORKER__QUEUE__NAME": "\udcff"})[0]


@pytest.mark.parametrize(
    "url", ["redis://user:top@sekrit@db:6379/0", "redis://user:p@ss/sekrit@db", "redis://db:6379/0?password=sekrit"]
)
def test_a_login_in_a_url_is_never_shown(url: str, work_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even if it is malformed; as text and as JSON."""
    from trio_worker.cli.command_line import app  # noqa: PLC0415  the command line is imported by few tests

    (work_folder / "c.toml").write_text(f'[redis]\nurl = "{url}"\n')
    for more in ([], ["--json"]):
        with suppress(SystemExit):
            app(["config", "show", "--config", "c.toml", *more])
    assert "sekrit" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('[log]\nfile = "logs/worker-2.log"\nlevel = "debug"\n', True),
        ('[metrics]\nlisten = "127.0.0.1:9465"\n', True),
        ('[queue]\njournal_dir = "var/journal-2"\n', True),
        ("[retry]\nmax_attempts = 7\n", False),
        ("[queue]\nlease_seconds = 7\n", False),
    ],
)
def test_what_each_worker_of_a_host_has_for_itself_is_no_difference(text: str, tmp_path: Path, *, same: bool) -> None:
    """Different logs, journals and metrics addresses raise no alert; settings that affect mail do."""
    assert (digest_of(good(text, tmp_path)) == digest_of(good("", tmp_path))) is same


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CHUNKING", ("CHUNKING",)),
        ("CHUNKING, PIPELINING,", ("CHUNKING", "PIPELINING")),
        ('["CHUNKING", "PIPELINING"]', ("CHUNKING", "PIPELINING")),
        (" []", ()),
        ("", ()),
    ],
)
def test_a_list_of_the_environment_is_words_or_json(text: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    """Both forms are common in files of environment variables."""
    assert good("", tmp_path, {"TRIO_WORKER__SMTP__IGNORE_EHLO": text}).smtp.ignore_ehlo == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("['CHUNKING']", "words with commas between them, or a list in JSON"),
        ("[1]", "must be a list of strings"),
        ('[["CHUNKING"]]', "must be a list of strings"),
        ("CHUNKING PIPELINING", "CHUNKING PIPELINING is not the name of an SMTP extension"),
        ('["8BIT MIME"]', "8BIT MIME is not the name of an SMTP extension"),
    ],
)
def test_a_list_that_would_name_nothing_is_refused(text: str, part: str, tmp_path: Path) -> None:
    """An extension that is spelled wrongly would be used, and nobody would know."""
    (fault,) = bad("", tmp_path, {"TRIO_WORKER__SMTP__IGNORE_EHLO": text})

    assert fault.startswith("TRIO_WORKER__SMTP__IGNORE_EHLO")
    assert part in fault


@pytest.mark.parametrize("name", ["a b", "a..b", "bücher.example", "[192.0.2.999]", "192.0.2.1]"])
def test_an_ehlo_name_is_a_name_or_an_address(name: str, tmp_path: Path) -> None:
    """What relays would refuse with a syntax error is refused here, with its place."""
    (fault,) = bad(f'[smtp]\nehlo_name = "{name}"\n', tmp_path)

    assert "smtp.ehlo_name: must be a host name" in fault


@pytest.mark.parametrize(
    ("name", "is_warned_of"), [("localhost", True), ("mailer", True), ("mx.example.com", False), ("[192.0.2.1]", False)]
)
def test_an_ehlo_name_that_relays_refuse_is_warned_of(name: str, *, is_warned_of: bool, tmp_path: Path) -> None:
    """A bare name, and localhost: legal, and refused by many."""
    settings = good(f'[smtp]\nehlo_name = "{name}"\n', tmp_path)

    assert any("smtp.ehlo_name" in fault.reason for fault in settings.warnings) is is_warned_of


def test_template_folders_are_relative_to_what_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the file to its folder, wherever a command is started; those of the environment to where it is."""
    (tmp_path / "conf" / "mine").mkdir(parents=True)
    (tmp_path / "here" / "own").mkdir(parents=True)
    file = tmp_path / "conf" / "worker.toml"
    file.write_text(f"[mail]\ntemplate_dirs = ['mine', '{tmp_path / 'here'}']\n")
    monkeypatch.chdir(tmp_path / "here")

    for path in (file, Path("../conf/worker.toml")):
        read = read_settings(path, {})
        assert isinstance(read, Settings)
        assert [Path(each).resolve() for each in read.mail.template_dirs] == [
            tmp_path / "conf" / "mine",
            tmp_path / "here",
        ]
    read = read_settings(file, {"TRIO_WORKER__MAIL__TEMPLATE_DIRS": "own"})
    assert isinstance(read, Settings)
    assert read.mail.template_dirs == ("own",)
    file.write_text("[mail]\ntemplate_dirs = ['own']\n")
    assert not isinstance(read_settings(file, {}), Settings)


def test_faults_come_in_the_order_of_their_lines(tmp_path: Path) -> None:
    """Whichever rule finds them: a person corrects the file from the top."""
    path = tmp_path / "worker.toml"
    path.write_text(
        "number_workers = 0\n[redis]\nurl = 'foo://x'\n[queue]\nnme = 1\n[mail]\nfrom = 'nobody'\n[bogus]\na = 1\n"
        "[metrics]\nlisten = 'what'\n"
    )

    read = read_settings(path, {"TRIO_WORKER__SMTP__PORT": "x"})

    assert isinstance(read, SettingFaults)
    places = [fault.place.removeprefix(f"{path}:") for fault in read.faults]
    assert [place for place in places if place.isdecimal()] == ["1", "3", "5", "7", "9", "11"]
    assert "TRIO_WORKER__SMTP__PORT" in places


def test_faults_of_several_files_stay_together() -> None:
    """Each file has its own lines; what has no line stays where it was among the others."""
    given = ["b:9", "a:3", "VARIABLE", "b:2", "a:1", "flag x", "VARIABLE"]

    found = in_order([SettingFault(place, str(number)) for number, place in enumerate(given)])

    assert [fault.place for fault in found] == ["b:2", "b:9", "a:1", "a:3", "VARIABLE", "VARIABLE", "flag x"]

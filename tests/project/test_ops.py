"""What conf/ops holds agrees with the program: metrics, commands, ports, stop times; checked by their own tools."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.production import OWN_VALUES
from trio_worker.cli.command_line import app
from trio_worker.settings.reader import KEYS, read_settings
from trio_worker.settings.reader import Settings as AllSettings
from trio_worker.settings.sources import variable_of
from trio_worker.telemetry.metric_table import TABLE, Kind

OPS = ROOT / "conf" / "ops"
GRACE_SECONDS = AllSettings().shutdown.grace_seconds
UNITS = sorted((OPS / "systemd").glob("*.service"))
_METRIC = re.compile(r"\b(trio_worker[_:][a-z0-9_:]+)")


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for name in ("rules.yml", "alerts.yml")
        for group in documents(OPS / "prometheus" / name)[0]["groups"]
        for rule in group["rules"]
    ]


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((OPS / "grafana" / "trio_worker.json").read_text("utf-8"))
    return found


def exported() -> set[str]:
    """Every series that a scrape can show, and every rule that records one."""
    found = {rule["record"] for rule in rules() if "record" in rule}
    for metric in TABLE:
        ends = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        found |= {metric.exported + end for end in ends}
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in board()["panels"] for target in panel.get("targets", ())]
    annotations = [each["expr"] for each in board()["annotations"]["list"]]
    variables = [each["query"] for each in board()["templating"]["list"]]
    return [*(rule["expr"] for rule in rules()), *panels, *annotations, *variables]


def test_every_metric_that_is_asked_for_exists() -> None:
    """A board or an alert with a name that is not exported would always be silent."""
    asked = {name for expression in expressions() for name in _METRIC.findall(expression)}

    assert asked
    assert asked <= exported()


def test_label_values_that_are_asked_for_exist() -> None:
    """The same for values: each is in the closed list of its label."""
    known = {(name, value) for metric in TABLE for name, values in metric.labels.items() for value in values}
    for expression in expressions():
        for name, value in re.findall(r"(\w+)=\"([^\"]*)\"", expression):
            assert (name, value) in known, expression


def test_every_alert_has_its_page() -> None:
    """And no page is of an alert that is gone."""
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    pages = set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE))
    alerts = [rule for rule in rules() if "alert" in rule]

    assert {alert["alert"] for alert in alerts} == pages
    for alert in alerts:
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_every_alert_has_a_test() -> None:
    """Promtool sees each of them fire."""
    (tests,) = documents(OPS / "prometheus" / "alerts_test.yml")
    fired = {
        case["alertname"] for test in tests["tests"] for case in test.get("alert_rule_test", ()) if case["exp_alerts"]
    }

    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_board_can_be_imported_anywhere() -> None:
    """Its data source is a variable; ids and places are each there once."""
    text = json.dumps(board())
    panels = board()["panels"]

    assert "__inputs" not in board()
    assert "alert" not in {key for panel in panels for key in panel}
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {"trio-worker", "${datasource}"}
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def environment_keys(text: str) -> set[str]:
    return set(re.findall(r"\bTRIO_WORKER__[A-Z_]+", text))


@pytest.mark.parametrize("path", sorted(path for path in OPS.rglob("*") if path.is_file()), ids=lambda path: path.name)
def test_settings_and_commands_that_are_named_exist(path: Path) -> None:
    """Each variable is a key, and each command is one of ours."""
    text = path.read_text("utf-8")
    variables = {variable_of(key) for key in KEYS} | {f"{variable_of(key)}_FILE" for key in KEYS}

    assert environment_keys(text) <= variables
    for noun in re.findall(r"(?:bin/trio-worker |\"trio-worker\", \"|\[trio-worker, )(\w+)", text):
        assert noun in app


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_leave_time_to_drain(unit: Path) -> None:
    """They stop later than the grace, do not restart a wrong configuration, and set what the worker accepts."""
    text = unit.read_text("utf-8")
    fields = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    given = {
        name.replace("%i", "1"): value.replace("%i", "1")
        for name, value in re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE)
    }

    assert float(fields["TimeoutStopSec"]) > GRACE_SECONDS
    assert fields["Type"] == "notify"
    assert fields["RestartPreventExitStatus"] == "78"
    assert isinstance(read_settings(None, given), AllSettings)
    assert shlex.split(fields["ExecStart"])[1] in app


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_understood_by_systemd(unit: Path, tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong; the test provides the program that it checks for."""
    program = tmp_path / "trio-worker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(unit.read_text("utf-8").replace("/opt/trio-worker/bin/trio-worker", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],  # noqa: S607  wherever it is
        capture_output=True,
        text=True,
        check=False,
    )

    assert unit.name not in done.stderr, done.stderr


def test_compose_leaves_time_to_drain_and_its_files_exist() -> None:
    """Docker stop would kill after ten seconds; the Dockerfile copies what is there."""
    (compose,) = documents(OPS / "docker" / "compose.yaml")
    worker = compose["services"]["worker"]
    dockerfile = (OPS / "docker" / "Dockerfile").read_text("utf-8")

    assert int(worker["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS
    assert (OPS / "docker" / worker["build"]["context"]).resolve() == ROOT
    assert (ROOT / worker["build"]["dockerfile"]).is_file()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    assert "health" in app
    assert re.findall(r"EXPOSE (\d+)", dockerfile) == re.findall(r"LISTEN=0\.0\.0\.0:(\d+)", dockerfile)


def given_by(environment: Mapping[str, object], tmp_path: Path) -> dict[str, str]:
    """Return what the worker of a manifest is given: what its operator must fill in is filled in."""
    password = tmp_path / "smtp_password"
    password.write_text("secret")
    password.chmod(0o400)
    given = {name: str(value) for name, value in environment.items() if value is not None} | OWN_VALUES
    return {**given, "TRIO_WORKER__SMTP__USERNAME": "shop", "TRIO_WORKER__SMTP__PASSWORD_FILE": str(password)}


ASKED_FOR = {*OWN_VALUES, "TRIO_WORKER__SMTP__USERNAME"}


def test_compose_asks_for_what_nobody_else_can_know(tmp_path: Path) -> None:
    """Sender, login and links as well as the relay; with them the production file is accepted without a warning."""
    (compose,) = documents(OPS / "docker" / "compose.yaml")
    environment = compose["services"]["worker"]["environment"]

    assert {name for name, value in environment.items() if str(value).startswith("${") and ":?" in value} == ASKED_FOR
    settings = read_settings(ROOT / "conf" / "production.toml", given_by(environment, tmp_path))
    assert isinstance(settings, AllSettings)
    assert settings.warnings == ()


def test_pods_ask_for_what_nobody_else_can_know(tmp_path: Path) -> None:
    """They do not start before the values are there."""
    (deployment,) = documents(OPS / "kubernetes" / "deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}

    assert {name for name, value in environment.items() if value is None} == ASKED_FOR
    asked = [each["valueFrom"]["configMapKeyRef"] for each in container["env"] if "valueFrom" in each]
    assert not any(each.get("optional") for each in asked)
    settings = read_settings(ROOT / "conf" / "production.toml", given_by(environment, tmp_path))
    assert isinstance(settings, AllSettings)
    assert settings.warnings == ()


def test_the_user_of_the_image_can_read_its_secrets_and_keeps_its_journal() -> None:
    """One uid in the Dockerfile, the compose file and the pods; the journal outlives the container."""
    dockerfile = (OPS / "docker" / "Dockerfile").read_text("utf-8")
    (compose,) = documents(OPS / "docker" / "compose.yaml")
    worker = compose["services"]["worker"]
    (secret,) = worker["secrets"]
    (deployment,) = documents(OPS / "kubernetes" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    uid = re.findall(r"useradd .*--uid (\d+)", dockerfile)
    home = re.findall(r"--home-dir (\S+)", dockerfile)

    assert uid == [secret["uid"]] == [secret["gid"]] == [str(pod["securityContext"]["runAsUser"])]
    assert secret["mode"] == 0o400
    assert "environment" in compose["secrets"][secret["source"]]
    # Not the whole home: the workers share the volume, and each has a socket of its own beside it.
    assert worker["volumes"] == [f"journal:{home[0]}/journal"]
    assert "journal" in compose["volumes"]
    assert f"--owner worker --mode 0700 {home[0]}/journal" in dockerfile
    assert f"TRIO_WORKER__QUEUE__JOURNAL_DIR={home[0]}/journal" in dockerfile


def test_the_build_context_has_what_the_image_needs_and_no_more() -> None:
    """Everything is left out except for what the Dockerfile copies: no secret and no caught mail gets into a layer."""
    dockerfile = (OPS / "docker" / "Dockerfile").read_text("utf-8")
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()

    assert ignored[1] == "*"
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert kept == {name for line in lines for name in line.split()}


def test_pods_leave_time_to_drain_and_agree_on_the_port() -> None:
    """Kubernetes kills after terminationGracePeriodSeconds; probes ask our own command."""
    (deployment,) = documents(OPS / "kubernetes" / "deployment.yaml")
    (scaler,) = documents(OPS / "kubernetes" / "keda.yaml")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    listens = {each["name"]: each.get("value") for each in container["env"]}["TRIO_WORKER__METRICS__LISTEN"]
    listen, probed = listens.split(",")
    assert probed.startswith("unix:")

    assert pod["spec"]["terminationGracePeriodSeconds"] > GRACE_SECONDS
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert listen.rpartition(":")[2] == str(container["ports"][0]["containerPort"])
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == listen.rpartition(":")[2]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"][:2] == ["trio-worker", "health"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert set(_METRIC.findall(json.dumps(scaler))) <= exported()


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Prometheus' own checker, from the system or unpacked from Debian's package."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    folder = tmp_path_factory.mktemp("prometheus")
    for command in (["apt-get", "download", "prometheus"], ["sh", "-c", "dpkg -x prometheus_*.deb ."]):
        if shutil.which(command[0]) is None or subprocess.run(command, cwd=folder, check=False).returncode:
            pytest.skip("needs promtool: the Debian package prometheus")
    return str(folder / "usr" / "bin" / "promtool")


@pytest.mark.slow
def test_rules_hold_in_prometheus(promtool: str) -> None:
    """Each rule parses, and each alert fires when it should and not before."""
    folder = OPS / "prometheus"
    subprocess.run([promtool, "check", "rules", "rules.yml", "alerts.yml"], cwd=folder, check=True)
    subprocess.run([promtool, "test", "rules", "alerts_test.yml"], cwd=folder, check=True)


@pytest.mark.slow
def test_board_parses_in_prometheus(promtool: str, tmp_path: Path) -> None:
    """Every expression of the board is PromQL."""
    panels = [target["expr"] for panel in board()["panels"] for target in panel.get("targets", ())]
    panels += [each["expr"] for each in board()["annotations"]["list"]]
    recording = [
        {"record": f"board:panel{number}", "expr": expression.replace("$queue", ".*")}
        for number, expression in enumerate(panels)
    ]
    path = tmp_path / "board.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recording}]}))
    subprocess.run([promtool, "check", "rules", str(path)], check=True)

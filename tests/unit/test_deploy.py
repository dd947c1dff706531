"""What is in deploy/ fits the program: configurations load, commands and flags exist, units parse.

There is no container engine here: the image and the compose file are checked as text only.
"""

from __future__ import annotations

import configparser
import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from connector import config
from connector.cli import configuration
from connector.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
EXAMPLES = sorted((DEPLOY / "examples").glob("*/connector.toml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")


def flags_of(words: list[str]) -> tuple[str, set[str]]:
    """The command that ``words`` (after ``connector``) name, and the options that it takes."""
    command: Any = get_command(app)
    path = []
    for word in words:
        if word.startswith("-") or not hasattr(command, "commands"):
            break
        assert word in command.commands, f"connector {' '.join([*path, word])} does not exist"
        command = command.commands[word]
        path.append(word)
    return " ".join(path), {option for each in command.params for option in each.opts}


def check_command(line: str) -> str:
    """Every ``connector ...`` command in the shell text ``line`` exists, with all its flags."""
    words = shlex.split(line)
    start = words.index("connector") + 1
    words = words[start:]
    path, known = flags_of(words)
    assert path, f"{line!r} names no command"
    for word in words:
        if word.startswith("--"):
            assert word in known, f"connector {path} has no {word}"
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_configuration_loads(path: Path) -> None:
    role = config.role_of(path.parent)
    load = {"node": config.load_node, "directory": config.load_directory}[role]
    assert load(path.parent).did.startswith("did:web:")


def test_an_example_says_of_a_table_what_init_does() -> None:
    """Of each table that the provider's has: every key, its comment, and its default if it has no
    other value."""
    rendered = tables_of(configuration.render(config.Node, {}))
    example = tables_of((DEPLOY / "examples" / "provider" / "connector.toml").read_text())
    assert {"[management]", "[policy]", "[limits]", "[automation]", "[dsp]"} <= example.keys()
    for name, lines in example.items():
        if name.startswith("["):
            for said, init in zip(lines, rendered[name], strict=True):
                key, _, value = said.partition(" = ")
                assert said == init or (value and init.startswith(f"# {key} = ")), name


def test_the_example_s_peer_is_one(tmp_path: Path) -> None:
    text = (DEPLOY / "examples" / "provider" / "connector.toml").read_text()
    before, start, peer = text.partition("# [[peer]]\n")
    lines = [line.removeprefix("# ") for line in peer.splitlines() if " = " in line]
    (tmp_path / "connector.toml").write_text("\n".join([before, start.removeprefix("# "), *lines]))
    (found,) = config.load_node(tmp_path).peer
    assert found.url == "https://dsp.harbour.example/2025-1"
    assert {line.partition(" = ")[0] for line in lines} == {
        field.name for field in dataclasses.fields(config.Peer)
    }


def tables_of(text: str) -> dict[str, list[str]]:
    """The lines of each table, up to the next empty one, by its header."""
    found = {}
    for block in text.split("\n\n"):
        head, *lines = block.strip().splitlines()
        found[head] = lines
    return found


def test_there_is_an_example_of_each_role() -> None:
    assert {config.role_of(path.parent) for path in EXAMPLES} == {"node", "directory"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_a_command_that_exists_and_is_hardened(path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    service = unit["Service"]
    command = service["ExecStart"].replace("/opt/tds-connector/bin/connector", "connector")
    assert check_command(command) in ("serve", "directory serve")
    assert service["StateDirectory"] in command
    hardened = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes"}
    hardened |= {"PrivateTmp": "yes", "UMask": "0077", "CapabilityBoundingSet": ""}
    assert {key: service[key] for key in hardened} == hardened
    assert int(service["TimeoutStopSec"]) > config.Node(did="did:web:a.example", name="A").drain_s


def test_the_nodes_unit_lets_a_worker_shut_itself_in() -> None:
    """A worker's sandbox is made of calls that systemd's group for services lacks."""
    allowed = (DEPLOY / "systemd" / "tds-connector.service").read_text()
    for call in ("seccomp", "landlock_create_ruleset", "landlock_restrict_self"):
        assert re.search(rf"^SystemCallFilter=.*\b{call}\b", allowed, re.M)


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_understands_the_unit(path: Path, tmp_path: Path) -> None:
    program = shutil.which("true")
    text = path.read_text().replace("/opt/tds-connector/bin/connector", str(program))
    copy = tmp_path / path.name
    copy.write_text(text)
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    assert not complaints


def test_the_compose_file_runs_commands_that_exist_on_volumes_that_exist() -> None:
    value = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    ran = set()
    for name, service in value["services"].items():
        command = service["command"]
        if service.get("entrypoint") == ["sh", "-c"]:
            (script,) = command
            ran.add(check_command(script.partition("||")[2]))
        else:
            ran.add(check_command(shlex.join(["connector", *command])))
        health = service.get("healthcheck", {}).get("test")
        if health:
            check_command(shlex.join(health[1:]))
        assert service["cap_drop"] == ["ALL"], name
        for needed in service.get("depends_on", {}):
            assert needed in value["services"]
        volume = service["volumes"][0].partition(":")[0]
        assert volume in value["volumes"], name
    assert ran == {"directory init", "directory serve", "init", "serve"}


def test_the_compose_files_comments_name_commands_that_exist() -> None:
    comments = [
        line for line in (DEPLOY / "compose.yaml").read_text().splitlines() if "exec " in line
    ]
    assert comments
    for line in comments:
        check_command(line.lstrip("# "))


def test_the_image_copies_what_there_is_and_installs_by_hash() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
        if "pip install" in line:
            assert "--require-hashes" in line or "--no-index" in line
    assert 'ENTRYPOINT ["connector"]' in text


LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_pins_every_package_and_names_no_host_and_no_path(path: Path) -> None:
    text = path.read_text()
    pins = re.findall(r"^[A-Za-z0-9._-]+(?:\[[a-z]+\])?==\S+.*\\$", text, re.M)
    blocks = [block for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M) if block[0] != "#"]
    assert len(pins) == len(blocks) > 0
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    assert not re.search(r"(^|\s)/\w", text)


def test_the_locks_agree_with_each_other() -> None:
    versions: dict[str, set[str]] = {}
    for path in LOCKS:
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(), re.M):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


TARGETS = [
    "help",
    "setup",
    "demo",
    "test",
    "lint",
    "type",
    "arch",
    "proto",
    "bench",
    "conformance",
    "fuzz",
]


def test_make_help_lists_the_targets() -> None:
    done = subprocess.run(
        [str(shutil.which("make")), "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert set(TARGETS) <= set(listed)


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_documents_name_commands_that_exist(path: Path) -> None:
    """Every line of a code block that starts with ``connector `` is a real command."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", path.read_text(), re.M | re.S)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        if line.startswith("connector ") and "..." not in line.split("--sql")[0]:
            check_command(re.sub(r"[<>|&#].*", "", line))

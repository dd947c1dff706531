"""``connector.toml``: what is accepted, and each thing that is refused, by name."""

import dataclasses
from pathlib import Path

import pytest

from connector import config
from connector.errors import ConfigError
from connector.tlog.note import COSIGNATURE_V1, ED25519, VerifierKey

NODE = 'role = "node"\ndid = "did:web:airport.example"\nname = "Airport"\n'
DIRECTORY = 'role = "directory"\ndid = "did:web:space.example"\nname = "Space"\n'


def write(folder: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    (folder / config.FILE_NAME).write_bytes(data)
    return folder


def test_the_least_node_has_every_default(tmp_path: Path) -> None:
    node = config.load_node(write(tmp_path, NODE))
    assert node == config.Node("did:web:airport.example", "Airport")
    assert node.limits == config.Limits()


def test_the_least_directory_has_every_default(tmp_path: Path) -> None:
    found = config.load_directory(write(tmp_path, DIRECTORY))
    assert found == config.Directory("did:web:space.example", "Space")
    assert found.heartbeat_s * 3 <= config.Node("", "").view_max_age_s, (
        "a quiet space is not a stale one"
    )


def test_what_is_written_is_what_holds(tmp_path: Path) -> None:
    text = NODE + (
        'listen = "[::1]:9443"\nview_max_age_s = 3\n'
        '[policy]\nengine = "opa"\n[limits]\nquery_timeout_s = 1.5\nworkers = 7\n'
        "[log]\nsegment_mb = 64\nseal = false\n"
    )
    node = config.load_node(write(tmp_path, text))
    assert node.listen == "[::1]:9443"
    assert (node.view_max_age_s, node.policy.engine) == (3, "opa")
    assert node.limits == dataclasses.replace(config.Limits(), query_timeout_s=1.5, workers=7)
    assert node.log == config.Log(segment_mb=64, seal=False)


def vkey(type: int = COSIGNATURE_V1, name: str = "w.example/log") -> str:
    return VerifierKey(name, bytes(32), type).encode()


def witness(url: str, key: str = "") -> str:
    return f'[[witness]]\nurl = "{url}"\nvkey = "{key or vkey()}"\n'


@pytest.mark.parametrize("load", ["node", "directory"])
def test_witnesses_and_what_is_witnessed(tmp_path: Path, load: str) -> None:
    second = vkey(name="x.example/log")
    text = (
        f'witness_for = ["{vkey(ED25519)}"]\n'
        + witness("https://w.example:8443/prefix/")
        + witness("http://127.0.0.1:9080", second)
        + '[https]\ncertificate = "tls/door.pem"\nkey = "/etc/tls/door.key"\n'
    )
    read = config.load_node if load == "node" else config.load_directory
    found = read(write(tmp_path, (NODE if load == "node" else DIRECTORY) + text))
    assert found.witness == (
        config.Witnessed("https://w.example:8443/prefix/", vkey()),
        config.Witnessed("http://127.0.0.1:9080", second),
    )
    assert found.witness_for == (vkey(ED25519),)
    assert found.https == config.Https("tls/door.pem", "/etc/tls/door.key")


# What is wrong, and a word of the message that says so.
WRONG = {
    "an unknown key": (NODE + "view_max_age = 5", "view_max_age"),
    "an unknown table": (NODE + "[limit]\nworkers = 2", "limit"),
    "an unknown key in a table": (NODE + "[limits]\nworker = 2", "worker"),
    "a directory's key": (NODE + "heartbeat_s = 5", "heartbeat_s"),
    "no did": ('role = "node"\nname = "Airport"', "did"),
    "no name": ('role = "node"\ndid = "did:web:airport.example"', "name"),
    "an empty name": (NODE.replace('"Airport"', '""'), "name"),
    "no role": (NODE.replace('role = "node"\n', ""), "role"),
    "another role": (DIRECTORY, "role"),
    "a role that is no text": (NODE.replace('"node"', "1"), "role"),
    "a did that is none": (NODE.replace("did:web:airport.example", "airport"), "did"),
    "text for a number": (NODE + 'drain_s = "5"', "drain_s"),
    "a number for text": (NODE + "listen = 9443", "listen"),
    "a part for a whole number": (NODE + "[limits]\nworkers = 1.5", "workers"),
    "true for a number": (NODE + "[limits]\nworkers = true", "workers"),
    "zero": (NODE + "[limits]\nworkers = 0", "workers"),
    "less than zero": (NODE + "view_max_age_s = -1", "view_max_age_s"),
    "infinity": (NODE + "view_max_age_s = inf", "view_max_age_s"),
    "no number": (NODE + "view_max_age_s = nan", "view_max_age_s"),
    "a text for a table": (NODE + 'policy = "opa"', "policy"),
    "a list for a table": (NODE + "limits = []", "limits"),
    "an unknown engine": (NODE + '[policy]\nengine = "none"', "engine"),
    "an address without a port": (NODE + 'listen = "127.0.0.1"', "listen"),
    "an address without a host": (NODE + 'listen = ":9443"', "listen"),
    "an empty listen": (NODE + 'listen = ""', "listen"),
    "a port that is none": (NODE + 'http = "127.0.0.1:http"', "http"),
    "a port too large": (NODE + 'endpoint = "airport.example:65536"', "endpoint"),
    "a port in other digits": (NODE + 'listen = "127.0.0.1:９４４３"', "listen"),
    "an unknown log level": (NODE + 'log_level = "verbose"', "log_level"),
    "a certificate without its key": (NODE + '[https]\ncertificate = "door.pem"', "https"),
    "a key without its certificate": (NODE + '[https]\nkey = "door.key"', "https"),
    "management over plain HTTP": (NODE + '[management]\nhttp = "0.0.0.0:9090"', "loopback"),
    "management at a name": (NODE + '[management]\nhttp = "a.example:9090"', "loopback"),
    "management without a port": (NODE + '[management]\nhttp = "127.0.0.1"', "management.http"),
    "a door that nobody can call": (NODE + '[dsp]\nlisten = "0.0.0.0:9444"', "dsp.url"),
    "such a door of IPv6": (NODE + '[dsp]\nlisten = "[::]:9444"', "dsp.url"),
    "a door without a port": (NODE + '[dsp]\nlisten = "127.0.0.1"', "dsp.listen"),
    "a door without TLS": (NODE + '[dsp]\nlisten = "a.example:1"\nplain_http = true', "loopback"),
    "a door by plain HTTP": (NODE + '[dsp]\nurl = "http://a.example"', "dsp.url"),
    "a door with a question": (NODE + '[dsp]\nurl = "https://a.example/?b"', "dsp.url"),
    "an exception that is a URL": (NODE + '[dsp]\nallow = ["https://a.example"]', "allow"),
    "an exception that is no name": (NODE + '[dsp]\nallow = ["a b"]', "allow"),
    "a token for nowhere": (NODE + '[[peer]]\nid = "B"\npresents = "t"', "presents"),
    "an exception that is empty": (NODE + '[dsp]\nallow = [""]', "allow"),
    "a word of the door's that is none": (NODE + "[dsp]\nplain = true", "plain"),
    "a peer without an id": (NODE + '[[peer]]\nurl = "https://a.example"', "id"),
    "a peer that is us": (NODE + '[[peer]]\nid = "did:web:airport.example"', r"peer\[0\].id"),
    "a peer twice": (NODE + 2 * '[[peer]]\nid = "BPNL1"\n', r"peer\[1\].id"),
    "a peer by plain HTTP": (NODE + '[[peer]]\nid = "B"\nurl = "http://127.0.0.1/"', "url"),
    "a step that there is not": (NODE + "[automation]\nagrees = false", "agrees"),
    "a witness over plain HTTP": (NODE + witness("http://w.example"), r"witness\[0\].url"),
    "a witness over another protocol": (NODE + witness("ftp://w.example"), "url"),
    "a witness without a host": (NODE + witness("https://"), "url"),
    "a witness with a question": (NODE + witness("https://w.example/?a=b"), "url"),
    "a witness with a password": (NODE + witness("https://me:it@w.example"), "url"),
    "a witness with a port that is none": (NODE + witness("https://w.example:http"), "url"),
    "a witness with a log's key": (NODE + witness("https://w.example", vkey(ED25519)), "vkey"),
    "a witness with no key": (NODE + witness("https://w.example", "w.example"), "vkey"),
    "a witness without a key": (NODE + '[[witness]]\nurl = "https://w.example"', "vkey"),
    "a witness with more": (NODE + witness("https://w.example") + 'name = "w"', "name"),
    "a witness twice": (
        NODE + witness("https://a.example") + witness("https://b.example"),
        "twice",
    ),
    "witnesses that are no list": (NODE + 'witness = "https://w.example"', "list"),
    "witnesses that are no tables": (NODE + 'witness = ["https://w.example"]', "table"),
    "a log with a witness's key": (NODE + f'witness_for = ["{vkey()}"]', r"witness_for\[0\]"),
    "a log that is a number": (NODE + "witness_for = [1]", "str"),
    "too many logs": (NODE + f"witness_for = {['x'] * 257}", "list"),
    "a number for yes or no": (NODE + "[log]\nseal = 1", "log: seal"),
    "yes for a number": (NODE + "[log]\nsegment_mb = true", "segment_mb"),
    "no TOML": ("role = node", "TOML"),
    "a key twice": (NODE + 'name = "Other"', "TOML"),
    "no UTF-8": (NODE.encode() + b"\xff", "TOML"),
    "too large": (NODE + "#" * config.MAX_FILE_BYTES, "larger"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_is_refused(tmp_path: Path, name: str) -> None:
    text, word = WRONG[name]
    with pytest.raises(ConfigError, match=word):
        config.load_node(write(tmp_path, text))


def test_a_folder_without_a_configuration_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load_node(tmp_path)
    assert "connector init" in caught.value.hint


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load_node(tmp_path)


def test_the_role_is_known_before_the_rest_is_read(tmp_path: Path) -> None:
    assert config.role_of(write(tmp_path, DIRECTORY)) == "directory"
    assert config.role_of(write(tmp_path, "")) == ""


def test_the_socket_is_where_the_kernel_can_bind_it(tmp_path: Path) -> None:
    assert config.socket_path(tmp_path, "").name == "connector.sock"
    assert config.socket_path(tmp_path, "/run/x.sock") == Path("/run/x.sock")
    long = "/" + "x" * (config.MAX_SOCKET_PATH - 1)
    assert config.socket_path(tmp_path, long) == Path(long)
    with pytest.raises(ConfigError, match="longer"):
        config.socket_path(tmp_path, long + "x")


def test_the_socket_that_speaks_http_is_beside_the_other(tmp_path: Path) -> None:
    assert config.http_socket_path(tmp_path, "").name == "management-http.sock"
    assert config.http_socket_path(tmp_path, "/run/a/x.sock") == Path("/run/a/x-http.sock")


@pytest.mark.parametrize("address", ["127.0.0.1:9090", "127.8.8.8:1", "[::1]:9090", "localhost:1"])
def test_management_over_plain_http_on_loopback(tmp_path: Path, address: str) -> None:
    text = f'[management]\nhttp = "{address}"\n'
    for found in (
        config.load_node(write(tmp_path, NODE + text)),
        config.load_directory(write(tmp_path, DIRECTORY + text)),
    ):
        assert found.management == config.Management(address)


def test_management_elsewhere_with_tls(tmp_path: Path) -> None:
    text = '[management]\nhttp = "0.0.0.0:9090"\n[https]\ncertificate = "c"\nkey = "k"\n'
    assert config.load_node(write(tmp_path, NODE + text)).management.http == "0.0.0.0:9090"

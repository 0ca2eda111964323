"""Settings: one name each, three sources, all problems at once, and no secret in sight."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from authz.cli.settings import load_settings
from authz.config import (
    PREFIX,
    Endpoint,
    IdentitySource,
    KeySettings,
    Settings,
    Transport,
    UnixSocket,
)
from authz.domain.keys import TokenLife
from authz.domain.verdict import Reuse
from authz.errors import BadSettings, KeyStoreError
from authz.keystore import configured_store
from authz.policysource.location import ConfigMapKey
from tests.support.certificates import SERVICE
from tests.support.processes import KEK

TLS = {"tls_cert_file": "/c", "tls_key_file": "/k", "tls_ca_file": "/a"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def problems(
    flags: Mapping[str, Any], file: Path | None = None, kind: type[KeySettings] = Settings
) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        load_settings(kind, flags, file)
    return list(caught.value.problems)


# Sources ---------------------------------------------------------------------------------------


def test_what_nobody_sets_has_its_default() -> None:
    settings = load_settings(Settings, TLS, None)
    assert settings.listen == Endpoint("127.0.0.1", 9000)
    assert settings.identity is IdentitySource.MTLS
    assert settings.token_life == TokenLife(720, 30)


def test_flags_win_over_the_environment_and_that_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("drain_seconds: 1\ngrace_seconds: 1\nmax_streams: 1\ntoken_seconds: 900\n")
    monkeypatch.setenv("AUTHZ_DRAIN_SECONDS", "2")
    monkeypatch.setenv("AUTHZ_GRACE_SECONDS", "2")
    settings = load_settings(Settings, {**TLS, "drain_seconds": "3", "token_seconds": "901"}, file)
    assert (settings.drain_seconds, settings.grace_seconds, settings.max_streams) == (3, 2, 1)
    assert settings.token_seconds == 901


def test_the_environment_wins_however_its_name_is_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("drain_seconds: 1\n")
    monkeypatch.setenv("authz_drain_seconds", "2")
    assert load_settings(Settings, TLS, file).drain_seconds == 2


GOOD: dict[str, tuple[str, Any]] = {
    "store": ("sqlite:/x", "sqlite:/x"),
    "kek_files": ("/a,/b", [Path("/a"), Path("/b")]),
    "token_seconds": ("900", 900),
    "clock_leeway_seconds": ("10", 10),
    "longest_request_seconds": ("60", 60),
    "listen": ("[::]:1", Endpoint("::", 1)),
    "http_listen": (":0", Endpoint("*", 0)),
    "identity": ("mtls", IdentitySource.MTLS),
    "tls_cert_file": ("/c", Path("/c")),
    "tls_key_file": ("/k", Path("/k")),
    "tls_ca_file": ("/a", Path("/a")),
    "own_id": (str(SERVICE), str(SERVICE)),
    "policy_file": ("/p", Path("/p")),
    "policy_configmap": ("a/b.c/d_E.f", ConfigMapKey("a", "b.c", "d_E.f")),
    "policy_kept_file": ("/kept", Path("/kept")),
    "policy_kept_seconds": ("60", 60),
    "policy_from_cluster": ("true", True),
    "token_header": ("X-My-Token", "x-my-token"),
    "log_allows": ("0.01", 0.01),
    "drain_seconds": ("0", 0),
    "grace_seconds": ("0", 0),
    "transport": ("grpcio", Transport.GRPCIO),
    "workers": ("2", 2),
    "max_streams": ("1", 1),
    "max_message_bytes": ("1024", 1024),
    "max_connection_age_seconds": ("60", 60),
    "max_connections": ("1", 1),
    "max_connections_per_namespace": ("1", 1),
    "max_buffered_bytes": ("4194304", 4_194_304),
    "max_handshakes": ("1", 1),
    "handshake_seconds": ("1", 1),
    "idle_seconds": ("1", 1),
    "request_seconds": ("1", 1),
    "max_checks_per_second": ("0", 0),
    "reuse_sign_seconds": ("30", 30),
    "reuse_verify_seconds": ("2", 2),
}


def test_every_setting_is_tried() -> None:
    assert {*GOOD, "kek"} == set(Settings.model_fields)


@pytest.mark.parametrize("name", GOOD)
def test_a_setting_means_the_same_from_every_source(
    name: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = GOOD[name]
    others = {key: value for key, value in TLS.items() if key != name}
    file.write_text(f'{name}: "{text}"\n')
    from_file = load_settings(Settings, others, file)
    from_flags = load_settings(Settings, {**others, name: text}, None)
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", text)
    from_environment = load_settings(Settings, others, None)
    assert getattr(from_file, name) == value
    assert from_file == from_flags == from_environment


def test_a_list_in_the_file_may_be_one(file: Path) -> None:
    file.write_text("kek_files: [/a, /b]\n")
    assert load_settings(KeySettings, {}, file).kek_files == [Path("/a"), Path("/b")]


def test_one_file_serves_the_commands_that_need_less(file: Path) -> None:
    file.write_text("listen: nonsense\ntoken_seconds: 900\n")
    assert load_settings(KeySettings, {}, file).token_seconds == 900


def test_a_flag_wins_over_the_file_however_that_writes_the_name(file: Path) -> None:
    file.write_text("DRAIN_SECONDS: 1\n")
    assert problems({**TLS, "drain_seconds": "3"}, file) == ["DRAIN_SECONDS: unknown setting"]


OF_0_1_0 = """
clock_leeway_seconds drain_seconds grace_seconds handshake_seconds http_listen identity idle_seconds
kek kek_files listen longest_request_seconds max_buffered_bytes max_checks_per_second
max_connection_age_seconds max_connections max_connections_per_namespace max_handshakes
max_message_bytes max_streams own_id policy_file policy_from_cluster request_seconds store
tls_ca_file tls_cert_file tls_key_file token_header token_seconds transport workers
"""


def test_a_settings_file_of_the_first_version_is_read() -> None:
    """A setting that goes is an upgrade that fails: CHANGELOG must say what to do about it."""
    assert set(OF_0_1_0.split()) <= Settings.model_fields.keys()


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_an_empty_file_sets_nothing(file: Path, text: str) -> None:
    file.write_text(text)
    assert load_settings(KeySettings, {}, file) == load_settings(KeySettings, {}, None)


# Problems --------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("listen: 9000\nno_such_setting: 1\n")
    monkeypatch.setenv("AUTHZ_MAX_STREAMS", "0")
    told = problems({"token_seconds": "100", "tls_key_file": "/k"}, file)
    assert sorted(problem.partition(":")[0] for problem in told) == [
        "listen",
        "max_streams",
        "no_such_setting",
        "tls_ca_file",
        "tls_cert_file",
        "token_seconds",
    ]


def test_no_problem_is_told_twice() -> None:
    told = problems({"token_seconds": "1", "longest_request_seconds": "x", **TLS})
    assert len(told) == 2


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("listen", "9000", "write it as host:port, such as 127.0.0.1:9000"),
        ("listen", "localhost:", "write it as host:port"),
        ("listen", "localhost:65536", "write it as host:port"),
        ("listen", "localhost:٣", "write it as host:port"),
        ("listen", "localhost:-1", "write it as host:port"),
        ("listen", "unix:", "write a Unix socket as unix: and an absolute path"),
        ("listen", "unix:run/authz.sock", "write a Unix socket as unix: and an absolute path"),
        ("listen", "unix:///run/authz\0", "write a Unix socket as unix: and an absolute path"),
        ("listen", f"unix:/{'é' * 54}", "the path of a Unix socket has at most 107 bytes"),
        ("http_listen", "unix:/run/authz.sock", "write it as host:port"),
        ("http_listen", "", "write it as host:port"),
        *(
            ("policy_configmap", value, "write it as NAMESPACE/NAME/KEY, such as authz-system/")
            for value in ("", "a", "a/b", "a/b/c/d", "/b/c", "a//c", "a/b/", "A/b/c", "a.b/c/d")
        ),
        *(
            ("policy_configmap", value, "write it as NAMESPACE/NAME/KEY, such as authz-system/")
            for value in ("a/B/c", "a/b_c/d", "a/b/c d", "a/../c", "kubernetes:a/b/c", "a/b/c\n")
        ),
        ("identity", "none", "Input should be 'mtls', 'xfcc' or 'insecure-metadata-for-dev"),
        ("token_seconds", "59", "Input should be greater than or equal to 60"),
        ("token_seconds", "86401", "Input should be less than or equal to 86400"),
        ("token_seconds", "ten", "Input should be a valid integer"),
        ("clock_leeway_seconds", "-1", "Input should be greater than or equal to 0"),
        ("clock_leeway_seconds", "301", "Input should be less than or equal to 300"),
        ("drain_seconds", "86401", "Input should be less than or equal to 86400"),
        ("max_streams", "0", "Input should be greater than or equal to 1"),
        ("max_message_bytes", "1023", "Input should be greater than or equal to 1024"),
        ("max_connection_age_seconds", "59", "Input should be greater than or equal to 60"),
        ("token_header", "tenant-token", "use letters, digits and '-', beginning with 'x-'"),
        ("token_header", "x-", "use letters, digits"),
        ("token_header", "x-tökén", "use letters, digits"),
        ("token_header", "x-a b", "use letters, digits"),
        ("token_header", "x-a\r\nx-b", "use letters, digits"),
        ("token_header", "x-envoy-token", "Envoy keeps headers of this name for itself"),
        ("token_header", "X-Request-Id", "Envoy keeps headers of this name for itself"),
        ("token_header", "x-forwarded-for", "Envoy keeps headers of this name for itself"),
    ],
)
def test_a_bad_value_is_told_by_its_setting_with_the_fix(
    name: str, value: str, problem: str
) -> None:
    (told,) = problems({**TLS, name: value})
    assert told.startswith(f"{name}: {problem}")


@pytest.mark.parametrize("name", ["Listen", "LISTEN", "port", "kek_file", "config", "listen "])
def test_an_unknown_name_in_the_file_is_told(file: Path, name: str) -> None:
    file.write_text(f"'{name}': 1\n")
    assert problems(TLS, file) == [f"{name}: unknown setting"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[]x", "is not valid YAML"),
        (b"- a\n", "must hold a mapping, such as 'listen: 127.0.0.1:9000'"),
        (b"text", "must hold a mapping"),
        (b"1: a", "must hold a mapping"),
        (b"a: 1\na: 2", "is not valid YAML"),
        (b"a: 2027-02-30", "is not valid YAML"),
        (b"a: !!python/name:os.system x", "is not valid YAML"),
        (b"a: " + b"[" * 2000, "is not valid YAML"),
        (b"\xff", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_told(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)
    (told,) = problems({}, file)
    assert told.startswith(f"config: {file} {problem}")


def test_there_is_one_policy() -> None:
    (told,) = problems({**TLS, "policy_file": "/p", "policy_configmap": "a/b/c"})
    assert told == (
        "policy_configmap: policy_file is set, too (/p), and there is one policy: "
        "remove one of the two"
    )


@pytest.mark.parametrize("kept", ["/p/policy.yaml", "/p/x/../policy.yaml", "//p/./policy.yaml"])
def test_the_policy_file_is_not_written(kept: str) -> None:
    (told,) = problems({**TLS, "policy_file": "/p/policy.yaml", "policy_kept_file": kept})
    assert told == (
        f"policy_kept_file: {Path(kept)} is policy_file, which no server writes: name another file"
    )


def test_a_missing_file_is_told(file: Path) -> None:
    assert problems({}, file) == [f"config: {file}: No such file or directory"]


# Kubernetes ------------------------------------------------------------------------------------


def test_the_variables_of_a_service_of_the_same_name_are_harmless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kubernetes gives them to every pod beside a Service that is named `authz`."""
    for name, value in {
        "AUTHZ_SERVICE_HOST": "10.0.0.1",
        "AUTHZ_SERVICE_PORT": "9000",
        "AUTHZ_SERVICE_PORT_GRPC": "9000",
        "AUTHZ_PORT": "tcp://10.0.0.1:9000",
        "AUTHZ_PORT_9000_TCP": "tcp://10.0.0.1:9000",
        "AUTHZ_PORT_9000_TCP_PROTO": "tcp",
        "AUTHZ_PORT_9000_TCP_PORT": "9000",
        "AUTHZ_PORT_9000_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings(Settings, TLS, None) == load_settings(Settings, TLS, None)


def test_no_setting_has_the_name_of_such_a_variable() -> None:
    """Of the Service `authz`, nor of one that is named `authz-` and a setting's beginning."""
    service_link = re.compile(r"(.*_)?(service_(host|port(_.*)?)|port(_\d+_.*)?)")
    names = [*Settings.model_fields, "config"]
    assert [name for name in names if service_link.fullmatch(name)] == []


# Identity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", TLS)
def test_mtls_needs_all_three_files(missing: str) -> None:
    flags = {name: value for name, value in TLS.items() if name != missing}
    assert problems(flags) == [f"{missing}: identity mtls needs it: name a PEM file"]


def test_mtls_may_be_open_to_others() -> None:
    settings = load_settings(Settings, {**TLS, "listen": "0.0.0.0:9000"}, None)
    assert not settings.listen.is_loopback


XFCC = {"identity": "xfcc", "own_id": str(SERVICE)}
INSECURE = {"identity": "insecure-metadata-for-development-only"}


@pytest.mark.parametrize("identity", [XFCC, INSECURE], ids=["xfcc", "insecure"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_what_others_could_forge_is_fine_on_loopback(identity: dict[str, str], host: str) -> None:
    settings = load_settings(Settings, {**identity, "listen": f"{host}:9000"}, None)
    assert settings.listen.is_loopback


@pytest.mark.parametrize("identity", [XFCC, INSECURE], ids=["xfcc", "insecure"])
@pytest.mark.parametrize(
    "host",
    [
        "192.0.2.1",
        "10.0.0.1",
        "*",
        "",
        "[::]",
        "[::ffff:127.0.0.1]",
        "localhost.evil",
        "127.1",
    ],
)
def test_what_others_could_forge_is_refused_anywhere_else(
    identity: dict[str, str], host: str
) -> None:
    (told,) = problems({**identity, "listen": f"{host}:9000"})
    assert told.startswith("listen: ")
    assert told.endswith("listen on 127.0.0.1 or a Unix socket")


@pytest.mark.parametrize("own", [None, "", "authz", "spiffe://cluster.local/authz"])
def test_xfcc_needs_our_own_id(own: str | None) -> None:
    (told,) = problems({**XFCC, "own_id": own})
    assert told.startswith("own_id: identity xfcc needs it: ")


def test_the_insecure_identity_never_runs_in_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    (told,) = problems(INSECURE)
    assert told.startswith("identity: insecure-metadata-for-development-only believes anybody")
    for other in (TLS, XFCC):
        assert load_settings(Settings, other, None).identity is not IdentitySource.INSECURE_METADATA


# Token life ------------------------------------------------------------------------------------


def test_a_token_lives_as_long_as_a_request_may_wait() -> None:
    flags = {"longest_request_seconds": "100", "clock_leeway_seconds": "20"}
    good = load_settings(KeySettings, {**flags, "token_seconds": "180"}, None)
    assert good.token_life == TokenLife(180, 20)
    (told,) = problems({**flags, "token_seconds": "179"}, kind=KeySettings)
    assert told.startswith("token_seconds: 179 is too short")
    assert "set at least 180" in told


def test_what_proxies_keep_counts_for_the_life_of_a_token() -> None:
    kept = {**TLS, "reuse_sign_seconds": "30", "reuse_verify_seconds": "2"}
    settings = load_settings(Settings, kept, None)
    assert settings.token_life == TokenLife(720, 30, reuse=60, step=30)
    assert settings.reuse == Reuse(30, 2)
    (told,) = problems({**kept, "reuse_sign_seconds": "60"})
    assert told.startswith("token_seconds: 720 is too short")
    assert "set at least 750" in told
    longer = {**kept, "reuse_sign_seconds": "60", "token_seconds": "750"}
    assert load_settings(Settings, longer, None).token_life == TokenLife(750, 30, 120, 60)


def test_nothing_is_kept_unless_it_is_said() -> None:
    assert load_settings(Settings, TLS, None).reuse == Reuse(0, 0)


def test_the_defaults_leave_room_for_a_token_that_is_a_minute_old() -> None:
    settings = KeySettings()
    room = settings.token_seconds - settings.longest_request_seconds
    assert room >= settings.clock_leeway_seconds + 60


# Secrets ---------------------------------------------------------------------------------------


def test_a_kek_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_KEK", KEK)
    settings = load_settings(Settings, TLS, None)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert KEK not in shown


def test_a_kek_in_the_file_is_refused_and_not_quoted(file: Path) -> None:
    file.write_text(f"kek: {KEK}\n")
    told = problems({}, file)
    assert told == [f"kek: a secret does not belong in {file}: use kek_files or AUTHZ_KEK"]


@pytest.mark.parametrize("text", ["kek: {0}\nkek: {0}", "kek: [{0}", "'{0}"])
def test_a_kek_in_a_broken_file_is_not_quoted(file: Path, text: str) -> None:
    file.write_text(text.format(KEK))
    assert KEK not in "".join(problems({}, file))


def test_a_kek_under_another_spelling_is_refused_and_not_quoted(file: Path) -> None:
    file.write_text(f"KEK: {KEK}\n")
    assert problems(TLS, file) == ["KEK: unknown setting"]


def test_a_bad_kek_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_KEK", "half-a-secret")
    settings = load_settings(KeySettings, {}, None)
    with pytest.raises(KeyStoreError, match="AUTHZ_KEK does not hold a KEK") as caught:
        configured_store(settings)
    assert "half-a-secret" not in str(caught.value)


def test_a_kek_does_not_show_where_another_setting_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_KEK", KEK)
    assert KEK not in "".join(problems({**TLS, "listen": "x", "token_seconds": "1"}))


def test_without_any_kek_the_way_out_is_told() -> None:
    with pytest.raises(KeyStoreError, match="kek_files: no key-encryption key") as caught:
        configured_store(KeySettings())
    assert "authz keys init --generate-kek" in str(caught.value)


def test_keks_from_files_and_environment_are_used_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kek = tmp_path / "kek"
    kek.write_text("A" * 43 + "=")
    kek.chmod(0o600)
    monkeypatch.setenv("AUTHZ_KEK", KEK)
    flags = {"kek_files": str(kek), "store": "memory:"}
    store = configured_store(load_settings(KeySettings, flags, None))
    assert inspect.iscoroutinefunction(store.load)


def test_settings_do_not_change_once_they_are_made() -> None:
    settings = KeySettings()
    with pytest.raises(ValueError, match="frozen"):
        settings.token_seconds = 1  # type: ignore[misc]


# Unix sockets ----------------------------------------------------------------------------------

SOCKET = {"listen": "unix:/run/authz/authz.sock"}


@pytest.mark.parametrize("identity", [TLS, XFCC, INSECURE], ids=["mtls", "xfcc", "insecure"])
def test_a_unix_socket_serves_every_identity(identity: dict[str, str]) -> None:
    settings = load_settings(Settings, {**identity, **SOCKET}, None)
    assert settings.listen == UnixSocket(Path("/run/authz/authz.sock"))
    assert str(settings.listen) == SOCKET["listen"]


def test_a_unix_socket_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_LISTEN", SOCKET["listen"])
    assert str(load_settings(Settings, TLS, None).listen) == SOCKET["listen"]


def test_a_unix_socket_is_for_one_process_of_our_own_transport() -> None:
    workers, transport = problems({**TLS, **SOCKET, "workers": "2", "transport": "grpcio"})
    assert workers.startswith("workers: 2 processes cannot share unix:/run/authz/authz.sock: have")
    assert transport == "transport: grpcio listens on host:port only: use http2 for a Unix socket"


# Addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["127.0.0.1:9000", "[::1]:9000", "authz.example:0"])
def test_an_address_reads_as_it_is_written(text: str) -> None:
    assert str(Endpoint.parse(text)) == text

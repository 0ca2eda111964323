"""`authz doctor`: from dumps, pods and metrics to a table and an exit code."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from authz.doctor import Rule
from authz.envoyfilters import directory, shipped
from authz.lab.box.istio.box import without
from tests.command import Run
from tests.doctor.admin import answering
from tests.doctor.proxies import Bench

SIDECAR = "globex/plain"


@pytest.fixture
def sound(bench: Bench, tmp_path: Path) -> Path:
    file = tmp_path / "sound.json"
    file.write_text(json.dumps(bench.dump(SIDECAR)))
    return file


@pytest.fixture
def open_door(bench: Bench, tmp_path: Path) -> Path:
    file = tmp_path / "open.json"
    file.write_text(json.dumps(bench.dump(SIDECAR, without("tenant-authz-tcp")(shipped()))))
    return file


def test_a_sound_proxy(run: Run, sound: Path) -> None:
    ran = run("doctor", str(sound))
    assert (ran.code, ran.err) == (0, "")
    assert "1 proxies examined, 0 findings" in ran.out


def test_a_hole_is_told_with_why_and_how(run: Run, open_door: Path) -> None:
    ran = run("doctor", str(open_door))
    assert ran.code == 1
    for word in (
        SIDECAR,
        "tcp-missing",
        "tenant-authz.tcp is not there",
        "raw TCP",
        "kubectl apply",
    ):
        assert word in ran.out


def test_it_says_that_another_overlay_is_meant(run: Run, bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "keeps.json"
    file.write_text(json.dumps(bench.dump(SIDECAR, shipped("reuse"))))
    ran = run("doctor", str(file))
    assert (ran.code, "note: the filters of components/reuse are there" in ran.out) == (1, True)
    ran = run("doctor", str(file), "--overlay", "reuse")
    assert (ran.code, "note:" in ran.out) == (0, False)


def test_as_json(run: Run, open_door: Path) -> None:
    ran = run("doctor", str(open_door), "--json")
    assert ran.code == 1
    assert ran.json["examined"] == [SIDECAR]
    found = ran.json["findings"][0]
    assert found.keys() == {"workload", "where", "rule", "what", "why", "mend"}
    assert found["workload"] == SIDECAR


def test_from_a_folder_and_from_standard_input(
    run: Run, sound: Path, open_door: Path, tmp_path: Path
) -> None:
    assert run("doctor", str(tmp_path), "--json").json["examined"] == [SIDECAR, SIDECAR]
    assert run("doctor", "-", given=sound.read_text()).code == 0
    assert run("doctor", "-", given=open_door.read_text()).code == 1


def test_from_an_admin_endpoint(run: Run, sound: Path) -> None:
    with answering(sound.read_text()) as (url, asked):
        assert run("doctor", url).code == 0
        assert run("doctor", f"{url}/config_dump?include_eds").code == 0
    assert asked == ["/config_dump", "/config_dump?include_eds"]


def test_a_redirect_of_an_admin_endpoint_is_not_followed(run: Run, sound: Path) -> None:
    """It may be a tenant's, and lead to what only the operator's machine reaches."""
    with answering(sound.read_text()) as (url, asked), answering("", url) as (pod, _):
        ran = run("doctor", pod)
    assert (ran.code, asked) == (3, [])
    assert "302" in ran.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense", "no JSON"),
        ("[]", "no `configs`"),
        ('{"configs": []}', "lacks the BootstrapConfigDump"),
        ('{"configs": [1]}', "not the form of a config_dump"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_dump(run: Run, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    ran = run("doctor", "bad.json")
    assert (ran.code, said in ran.err) == (3, True)


def test_a_proxy_of_somebody_else(run: Run, bench: Bench, tmp_path: Path) -> None:
    dump = bench.dump(SIDECAR)
    dump["configs"][0]["bootstrap"]["node"]["id"] = "waypoint~10.0.0.1~a.b~b.svc"
    (tmp_path / "waypoint.json").write_text(json.dumps(dump))
    ran = run("doctor", "waypoint.json")
    assert (ran.code, "no sidecar or gateway" in ran.err) == (3, True)


def test_a_hole_counts_more_than_an_unreadable_dump(
    run: Run, open_door: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text("nonsense")
    ran = run("doctor", "bad.json", str(open_door))
    assert (ran.code, "no JSON" in ran.err, "tcp-missing" in ran.out) == (1, True, True)


def test_what_does_not_exist_or_answer(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("missing.json", "empty", "http://127.0.0.1:1/"):
        assert run("doctor", place).code == 3


def test_every_rule_names_the_command_or_object_that_mends_it() -> None:
    named = re.compile(
        r"kubectl |authz |(envoyfilters|deploy|components|base|overlays)/|meshConfig|annotation"
        r"|VirtualService|EnvoyFilter|WasmPlugin|DestinationRule|PeerAuthentication|Sidecar"
        r"|AuthorizationPolicy|ProxyConfig|runtimeValues|NetworkPolicy|Service|`?istio-injection"
        r"|upgrade_configs|/config_dump|iptables|Telemetry|upgrade the servers"
        r"|--metrics|captureMode"
    )
    assert [it.value for it in Rule if not named.search(it.mend)] == []
    assert [it.value for it in Rule if len(it.why) < 20] == []


def test_usage(run: Run, sound: Path) -> None:
    assert run("doctor").code == 2
    assert run("doctor", str(sound), "--accept", "typo").code == 2


def test_what_is_known_is_not_told(run: Run, open_door: Path) -> None:
    known = ("--accept", "early-connect", "--accept", "tcp-missing:globex/*")
    assert run("doctor", str(open_door), *known).code == 0
    assert run("doctor", str(open_door), *known[:3], "tcp-missing:acme/*").code == 1


def test_documents_of_ones_own(run: Run, bench: Bench, sound: Path, tmp_path: Path) -> None:
    text = (directory() / "rendered" / "enforce.yaml").read_text().replace("1s", "2s")
    (tmp_path / "mine.yaml").write_text(text)
    ran = run("doctor", str(sound), "--filters", "mine.yaml", "--json")
    assert {finding["rule"] for finding in ran.json["findings"]} == {
        "timeout",
        "cluster-times",
        "cluster-outlier",
    }
    (tmp_path / "bad.yaml").write_text("a: b")
    assert run("doctor", str(sound), "--filters", "bad.yaml").code == 3
    assert run("doctor", str(sound), "--overlay", "typo").code == 3


def _pod(name: str, *containers: str, **spec: Any) -> dict[str, Any]:
    namespace, name = name.split("/")
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"containers": [{"name": container} for container in containers], **spec},
        "status": {"phase": "Running"},
    }


PODS = {
    "items": [
        _pod("acme/sound", "app", "istio-proxy"),
        _pod("acme/native", "app", initContainers=[{"name": "istio-proxy"}]),
        _pod("acme/bare", "app"),
        _pod("acme/node", "app", hostNetwork=True),
        _pod("kube-system/dns", "app"),
        _pod("acme/ended", "app") | {"status": {"phase": "Succeeded"}},
    ]
}


def test_pods_without_a_proxy(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pods.json").write_text(json.dumps(PODS))
    ran = run("doctor", "--pods", "pods.json", "--json")
    found = {finding["workload"]: finding["what"] for finding in ran.json["findings"]}
    assert ran.code == 1
    assert found.keys() == {"acme/bare", "acme/node"}
    assert "node's network" in found["acme/node"]
    for nothing in ('{"items": [{}]}', '{"items": []}'):
        (tmp_path / "pods.json").write_text(nothing)
        assert run("doctor", "--pods", "pods.json").code == 3


def test_namespaces_that_sign_and_never_verify(run: Run) -> None:
    with answering('authz_namespace_unverified{namespace="acme"} 1\n') as (url, _):
        ran = run("doctor", "--metrics", f"{url}/metrics", "--json")
    assert ran.code == 1
    assert [(finding["workload"], finding["rule"]) for finding in ran.json["findings"]] == [
        ("acme", "never-verifies")
    ]


SAW_SIGN = """authz_verified_namespaces 0
authz_namespace_unverified{namespace="shop"} 1
authz_namespace_unverified{namespace="bank"} 1
"""
SAW_VERIFY = """authz_verified_namespaces 1
authz_namespace_verified{namespace="shop"} 1
"""
OLDER = "authz_unverified_namespaces 0\n"
TOO_MANY = SAW_VERIFY.replace("namespaces 1", "namespaces 1001")


@pytest.mark.parametrize("turned", [False, True])
def test_servers_of_several_nodes_are_judged_together(run: Run, turned: bool) -> None:
    """A namespace that calls on one node and is called on another has no hole."""
    with answering(SAW_SIGN) as (one, _), answering(SAW_VERIFY) as (other, _):
        urls = [f"--metrics={it}/metrics" for it in ((other, one) if turned else (one, other))]
        ran = run("doctor", *urls, "--json")
    found = [(finding["workload"], finding["rule"]) for finding in ran.json["findings"]]
    assert (ran.code, found) == (1, [("bank", "never-verifies")])


@pytest.mark.parametrize("other", [OLDER, TOO_MANY])
def test_what_one_of_several_servers_does_not_say_is_not_found_but_told(
    run: Run, other: str
) -> None:
    with answering(SAW_SIGN) as (url, _), answering(other) as (second, _):
        ran = run("doctor", f"--metrics={url}/metrics", f"--metrics={second}/metrics", "--json")
        report = run("report", f"--metrics={url}/metrics", f"--metrics={second}/metrics", "--json")
    assert (ran.code, ran.json["findings"]) == (3, [])
    assert "cannot tell whether bank" in ran.err
    verdicts = {it["namespace"]: it["verdict"] for it in report.json["namespaces"]}
    assert verdicts["bank"] == "unknown"


def test_upstreams_that_the_servers_could_not_read(run: Run) -> None:
    """Whatever the dumps say, the filters in force send something else than a cluster's name."""
    counted = 'authz_checks_total{{question="sign",outcome="allow",reason="{}"}} 7\n'
    texts = counted.format("upstream-unreadable"), counted.format("left-the-mesh")
    with answering(texts[0]) as (bad, _), answering(texts[1]) as (good, _):
        ran = run("doctor", "--metrics", f"{bad}/metrics", "--json")
        assert run("doctor", "--metrics", f"{good}/metrics").code == 0
    assert ran.code == 1
    assert [(it["rule"], it["where"], it["what"]) for it in ran.json["findings"]] == [
        (
            "upstream-unreadable",
            "question sign",
            "7 upstreams were no cluster names of istiod's",
        )
    ]


KUBECTL = """#!{python}
import json, os, pathlib, sys
assert "AUTHZ_KEK" not in os.environ
here = pathlib.Path({here!r})
with (here / "asked").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1:3] == ["get", "pods"]:
    print((here / "listed.json").read_text())
elif "plain" in sys.argv:
    print((here / "sound.json").read_text())
else:
    sys.exit("error: no such container")
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that stands in for the real one; says what lies beside it."""
    made = tmp_path / "kubectl"
    made.write_text(KUBECTL.format(python=sys.executable, here=str(tmp_path)))
    made.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AUTHZ_KEK", "a secret that kubectl and its plug-ins need not know")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


def test_a_cluster_that_is_refused_is_not_asked_by_kubectl_either(
    run: Run, kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a"}}],
        "clusters": [
            {
                "name": "a",
                "cluster": {"server": "https://203.0.113.1", "insecure-skip-tls-verify": True},
            }
        ],
    }
    (kubectl / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(kubectl / "config"))
    ran = run("doctor", "--cluster")
    assert (ran.code, "insecure-skip-tls-verify" in ran.err) == (3, True)
    assert not (kubectl / "asked").exists()


def test_where_no_credentials_are_found_kubectl_is_asked(
    run: Run, sound: Path, kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own pods, whose agent has no Envoy, are not asked."""
    ours = _pod("authz-system/authz-1", "authz", "istio-proxy")
    ours["metadata"]["annotations"] = {"inject.istio.io/templates": "grpc-agent"}
    items = [_pod(SIDECAR, "app", "istio-proxy"), ours]
    (kubectl / "listed.json").write_text(json.dumps({"items": items}))
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["findings"], ran.json["unreadable"]) == (0, [], [])
    assert (ran.json["examined"], [*ran.json["skipped"]]) == ([SIDECAR], ["authz-system/authz-1"])
    asked = [json.loads(line) for line in (kubectl / "asked").read_text().splitlines()]
    wanted = ["exec", "--namespace=globex", "plain", "--container=istio-proxy"]
    assert wanted in [it[:4] for it in asked]
    items.append(_pod("acme/gone", "istio-proxy"))
    (kubectl / "listed.json").write_text(json.dumps({"items": items}))
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, "no such container" in ran.json["unreadable"][0]) == (3, True)
    monkeypatch.setenv("PATH", "/nowhere")
    ran = run("doctor", "--cluster")
    assert (ran.code, "no Kubernetes cluster can be used" in ran.err) == (3, True)

"""The page: the mesh at a glance, whatever names its owners gave to things."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from authz.doctor import Finding, Report, Rule, overview
from authz.doctor.summary import Examined
from tests.command import Run, in_process
from tests.doctor.clusters import pod, put
from tests.doctor.proxies import Bench
from tests.kube_double import ApiDouble

NOW = 1_800_000_000.0
EVIL = """"><script>alert(1)</script><img src=x onerror='alert(1)'>&amp;{0}%s"""


class Read(HTMLParser):
    """What elements there are, and whether each that is opened is closed."""

    VOID = frozenset({"meta", "link"})
    OPTIONAL = frozenset({"th", "td"})  # their ends may be left out

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID | self.OPTIONAL:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.elements if name == tag]
        return [it for it in found if kind is None or it.get("class") == kind]


def filled(name: str = "x") -> Report:
    """One with something of everything, in which everything is called `name`."""
    report = Report()
    report.proxies = [
        Examined(f"{name}/sound", "sidecar", f"1.31{name}", f"{name}"),
        Examined(f"{name}/bad", "sidecar", f"1.31{name}", f"{name}"),
        Examined("fine/sound", "gateway", "1.31", "default"),
    ]
    report.findings = [
        Finding(f"{name}/bad", f"listener {name}", f"it is {name}", Rule.TRUST),
        Finding(f"{name}/bare", "pod", "no sidecar", Rule.NO_PROXY),
        Finding(f"{name}", "namespace", f"{name} never", Rule.NEVER_VERIFIES),
    ]
    report.skipped = {"fine/waits": f"pending {name}", "quiet/waits": "pending"}
    report.unreadable = [f"{name}/off: refused {name}"]
    report.notes = [f"a note {name}"]
    return report


def test_the_mesh_at_a_glance() -> None:
    text = overview(filled(), NOW)
    page = Read(text)
    assert [it["class"] for it in page.all("section")] == ["bad", "good", "quiet"]
    squares = {it["title"]: it["class"] for it in page.all("i")}
    assert squares == {
        "x/sound: nothing found": "good",
        "x/bad: trust": "bad",
        "x/bare: no-proxy": "bad",
        "fine/sound: nothing found": "good",
        "fine/waits: pending x": "quiet",
        "quiet/waits: pending": "quiet",
    }
    for word in ("3 pods, 3 findings", "2027-01-15", "refused x", "a note x", "Istio 1.31x"):
        assert word in page.text
    for it in filled().findings:
        for word in (it.where, it.what, it.rule.why, it.rule.mend):
            assert word in page.text


def test_nothing_found_and_nothing_there() -> None:
    assert "None." in Read(overview(Report(), NOW)).text


def test_many_that_have_one_hole_are_one_row() -> None:
    report = Report()
    report.findings = [Finding(f"a/{it}", "x", "y", Rule.TRUST) for it in range(1000)]
    page = Read(overview(report, NOW))
    assert len(page.all("tr")) == 2
    assert "a/0, a/1, a/2 and 997 more" in page.text
    assert "a/999" in page.text


def test_names_are_never_markup_and_the_page_needs_nothing_else() -> None:
    plain, evil = Read(overview(filled(), NOW)), Read(overview(filled(EVIL), NOW))
    names = [(tag, sorted(attributes)) for tag, attributes in plain.elements]
    assert [(tag, sorted(attributes)) for tag, attributes in evil.elements] == names
    assert EVIL in evil.text
    for text in (overview(filled(), NOW), overview(filled(EVIL), NOW)):
        assert not re.search(r"<script|<img|https?://|@import|url\(", text)
        assert "default-src 'none'" in text
    links = [it for _, attributes in evil.elements for it in attributes if it in {"href", "src"}]
    assert links == ["href"]  # the icon, which is empty


def test_a_page_of_a_cluster(
    api: ApiDouble,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run: Run = in_process(monkeypatch, capsys)
    put(api, bench, "globex/plain")
    api.put("pods", pod("acme/bare", "app"))
    file = tmp_path / "mesh.html"
    assert run("doctor", "--cluster", "--html", str(file)).code == 1
    page = Read(file.read_text())
    squares = {it["title"]: it["class"] for it in page.all("i")}
    assert squares == {"globex/plain: nothing found": "good", "acme/bare: no-proxy": "bad"}
    ran = run("doctor", "--cluster", "--html", str(tmp_path / "none" / "mesh.html"))
    assert (ran.code, "--html" in ran.err) == (2, True)

"""The pages are fresh, lead somewhere and say what is so."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from authz import __version__
from authz.config import Settings
from authz.policysource.file import parse_policy
from tests.deploy.observability import exported, rules
from tests.pages.generated import ROOT, VERSIONED, names_version, replaced, stale, versioned
from tests.pages.reference import every_command

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")


def _pages() -> Iterator[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        yield from (ROOT / name for name in done.stdout.split() if (ROOT / name).exists())
    else:  # an unpacked archive
        yield from (it for it in ROOT.rglob("*.md") if it.relative_to(ROOT).parts[0][0] != ".")


PAGES = sorted(_pages())
TEXTS = {page: page.read_text() for page in PAGES}
REFERENCE = TEXTS[ROOT / "authz/REFERENCE.md"]


def test_what_is_generated_is_fresh() -> None:
    assert not stale(), "run python -m tests.pages"


def test_a_part_without_its_comments_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"README\.md"):
        replaced("# nothing", "settings", "", "README.md")


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 10_240


@pytest.mark.parametrize("page", PAGES, ids=lambda it: str(it.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", TEXTS[page])):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text()), link


def _anchors(text: str) -> set[str]:
    """What GitHub makes of headings."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", head)).lower() for head in heads)
    return {word.replace(" ", "-") for word in words}


def test_every_command_is_in_the_reference_with_an_example() -> None:
    for words, _ in every_command():
        pattern = rf"^### `{words}[ `].*?^```sh\n(.*?)^```"
        section = re.search(pattern, REFERENCE, re.MULTILINE | re.DOTALL)
        assert section, words
        assert f"{words} " in section[1], words


def test_the_policy_in_the_reference_is_a_policy() -> None:
    (example,) = re.findall(r"```yaml\n(cluster_domains.*?)```", REFERENCE, re.DOTALL)
    policy = parse_policy(example)
    assert policy.grants
    assert policy.roles
    assert policy.exemptions
    assert policy.hosts


def test_limits_have_the_defaults_of_the_settings() -> None:
    section = REFERENCE.partition("\n## Limits\n")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)` ([\d,]+)", section)
    assert {name for name in Settings.model_fields if name.startswith("max_")} <= {
        name for name, _ in named
    }
    for name, value in named:
        assert Settings.model_fields[name].default == int(value.replace(",", "")), name


def test_every_alert_has_a_runbook_and_every_metric_a_line() -> None:
    runbooks = TEXTS[ROOT / "deploy/RUNBOOKS.md"]
    assert re.findall(r"^## (\w+)$", runbooks, re.MULTILINE) == [rule["alert"] for rule in rules()]
    for section in runbooks.split("\n## ")[1:]:
        assert re.findall(r"^\*\*(\w+)\.\*\* ", section, re.MULTILINE) == ["Means", "See", "Do"]
    page = TEXTS[ROOT / "deploy/observability/README.md"]
    table = page.partition("\n## Metrics\n")[2]
    assert set(re.findall(r"`((?:authz|process)_[a-z_]+)`", table)) == exported()


def test_every_filter_is_on_its_page() -> None:
    page = TEXTS[ROOT / "envoyfilters/README.md"]
    folder = ROOT / "envoyfilters"
    files = [path for path in (folder / "base").glob("*.yaml") if path.stem != "kustomization"]
    for it in [*files, *(folder / "components").iterdir()]:
        assert f"]({it.relative_to(folder)})" in page, it


def test_labels_by_which_pages_select_the_servers_log_are_theirs() -> None:
    daemonset = YAML(typ="safe").load((ROOT / "deploy/base/daemonset.yaml").read_text())
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    containers = [it["name"] for it in daemonset["spec"]["template"]["spec"]["containers"]]
    for page, text in TEXTS.items():
        for key, value in re.findall(r"logs -l (\S+?)=(\S+)", text):
            assert labels[key] == value, page
        for container in re.findall(r"logs -l \S+ -c (\w+)", text):
            assert container in containers, page


def test_the_version_has_one_place() -> None:
    """Files that name the image's version are found, and no other does."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    folders = ("authz", "deploy", "envoyfilters")
    files = [*ROOT.glob("*"), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    kinds = {".md", ".py", ".yaml", ".toml", ""}
    texts = {file: file.read_text() for file in files if file.suffix in kinds and file.is_file()}
    found = {str(it.relative_to(ROOT)) for it, text in texts.items() if names_version(text)}
    assert found - {"authz/REFERENCE.md", "CHANGELOG.md"} == set(VERSIONED)
    assert f"\n## {__version__} (" in (ROOT / "CHANGELOG.md").read_text()
    assert versioned("image: tenant-authz:9.9.9\n") == f"image: tenant-authz:{__version__}\n"


def test_no_page_installs_what_no_index_has() -> None:
    assert not [page for page, text in TEXTS.items() if "tenant-authz[" in text]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to render with")
def test_what_authz_manifests_prints_is_fresh() -> None:
    command = [sys.executable, str(ROOT / "deploy/render.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_commands_that_install_make_an_overlay_of_ones_own(tmp_path: Path) -> None:
    """They stand on one page, and another that shows them would be a second to keep."""
    blocks = [(page, it) for page in PAGES for it in FENCE.findall(TEXTS[page])]
    [(page, block)] = [it for it in blocks if "docker build" in it[1] and "apply -k mine" in it[1]]
    assert page == ROOT / "deploy/README.md"
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl to render with")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    head = "set -eu\nkubectl() { :; }\ndocker() { :; }\n"
    commands = head + block.partition("\n")[2].removesuffix("```")
    subprocess.run(["bash", "-c", commands], cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
    rendering = [kubectl, "kustomize", str(tmp_path / "mine")]
    done = subprocess.run(rendering, capture_output=True, text=True, check=True)
    assert f"image: registry.example/tenant-authz:{__version__}" in done.stdout
    assert "default_mode: shadow" in done.stdout


def test_what_the_readme_installs_with_stands_where_it_is_tried() -> None:
    section = TEXTS[ROOT / "README.md"].partition("## Install\n")[2].partition("\n## ")[0]
    [block] = FENCE.findall(section)
    assert set(block.splitlines()) <= set(TEXTS[ROOT / "deploy/README.md"].splitlines())

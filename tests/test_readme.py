"""What the README says of settings, metrics, commands and policy is so."""

import re
from pathlib import Path

from pydantic.fields import FieldInfo
from typer.main import get_command

from authz.cli import app
from authz.config import Settings
from authz.domain.decision import markdown
from authz.observe import Metrics
from authz.policysource.file import parse_policy
from authz.testing import ManualClock

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def settings_table() -> str:
    """The table of settings, as the README must have it."""
    rows = [
        f"| `{name}` | {_default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "| name | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    return "" if field.default in (None, []) else f"`{field.default}`"


def test_the_settings_table_is_that_of_the_code() -> None:
    assert settings_table() in README, f"put this into the README:\n{settings_table()}"


def test_the_decision_tables_are_those_that_decide() -> None:
    assert markdown() in README, "put into the README what `authz policy tables` prints"


def test_every_metric_is_in_the_table_and_every_metric_there_exists() -> None:
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics(ManualClock()).registry.collect()
    }
    assert set(re.findall(r"^\| `(authz_[a-z_]+)", README, re.MULTILINE)) == exported


def test_every_command_is_in_the_table() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        assert f"`authz {name}" in README
        for sub in getattr(command, "commands", {}):
            assert re.search(rf"authz {name} [^|]*\b{sub}\b", README) or f"`{sub}`" in README


def test_the_policy_example_is_a_policy() -> None:
    (example,) = re.findall(r"```yaml\n(cluster_domains.*?)```", README, re.DOTALL)
    policy = parse_policy(example)
    assert policy.grants
    assert policy.roles
    assert policy.exemptions
    assert policy.hosts


def test_the_files_that_it_links_to_exist() -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_there_is_no_placeholder_left() -> None:
    assert "<!--" not in README

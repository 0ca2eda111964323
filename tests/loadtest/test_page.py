"""The page, in a real browser, and the tables."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtest.client_run import ClientRun, encoded
from loadtest.compare import table
from loadtest.compare.page import page
from loadtest.compare.results import View, report
from loadtest.compare.schedule import Comparison, Point, Sample, Schedule
from loadtest.compare.variants import built_in, external
from loadtest.result import machine

NASTY = '<b>"opa"&</b>'
SCHEDULE = Schedule(connections=[1, 8], rates=[100, 200, 400], repeat=2, seconds=1)

COUNT = """<script>
const found = [...document.querySelectorAll("svg.plot")].map(plot => {
  const box = plot.getBoundingClientRect();
  const inside = each => {
    const it = each.getBoundingClientRect();
    return it.width > 0 && it.left >= box.left - 1 && it.right <= box.right + 1
        && it.top >= box.top - 1 && it.bottom <= box.bottom + 1;
  };
  const marks = [...plot.querySelectorAll(".mark")];
  return {
    title: plot.getAttribute("aria-label"),
    wanted: Number(plot.dataset.marks),
    drawn: marks.filter(inside).length,
    painted: marks.filter(each => getComputedStyle(each).fill.startsWith("rgb")).length,
    cut: [...plot.querySelectorAll("text")].filter(it => !inside(it)).map(it => it.textContent),
  };
});
document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
</script>"""


def made(rates: tuple[float, ...] = (100, 200, 400), *, slow: str = "") -> dict[str, Any]:
    """A report of made-up runs."""
    schedule = Schedule(connections=SCHEDULE.connections, rates=rates, repeat=2, seconds=1)
    variants = [*built_in(), external(f"{NASTY}=127.0.0.1:1")]
    done = Comparison(schedule, variants, "1.40.0")
    for number, (each, point, repeat) in enumerate(
        itertools.product(variants, schedule.points, range(2))
    ):
        latencies = encoded({100 + number * 3: 900, 500 + number * 40: 90, 30_000: 10 + repeat})
        right = int((point.rate or 1000) * (0.5 if each.name == slow else 1))
        outcome = ClientRun(right, 1.0 + repeat / 100, 0.2, latencies, latencies)
        authz = 0.05 if each.transport else None
        done.samples.append(Sample(each.name, point, outcome, 0.1, 0.12, authz, 0.2))
    return report(done, machine(), "python -m loadtest compare")


def test_every_mark_of_every_plot_is_seen_and_nothing_is_cut(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium here")
    file = tmp_path / "page.html"
    file.write_text(page(View(made())).replace("</body>", COUNT + "</body>"))
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *("--window-size=1240,2400", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--virtual-time-budget=5000", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    (found,) = re.findall(r"FOUND(.*)END", done.stdout)
    plots = json.loads(found)
    assert [plot["title"] for plot in plots] == [
        "Latency by percentile, 1 connection",
        "Latency by percentile, 400/s",
        "Median latency at fixed rates",
        "p99 latency at fixed rates",
        "CPU per request",
        "Requests per second, as many as there can be",
    ]
    # Six variants: six percentiles, three rates, CPU at three loads (two asked a third), two loads.
    assert [plot["wanted"] for plot in plots] == [36, 36, 18, 18, 3 * (12 + 2), 12]
    for plot in plots:
        assert plot["drawn"] == plot["painted"] == plot["wanted"], plot["title"]
        assert plot["cut"] == [], plot["title"]
    assert ":CONSOLE" not in done.stderr


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = page(View(made()))
    assert "<script" not in html
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", html)
    assert "prefers-color-scheme: dark" in html
    assert NASTY not in html
    assert "&lt;b&gt;&quot;opa&quot;&amp;&lt;/b&gt;" in html


def test_the_common_rate_is_one_that_everybody_kept_up_with() -> None:
    assert View(made()).common == Point(64, 400)
    assert View(made(slow="tenant-authz, grpcio")).common == Point(64, 100)
    assert View(made(rates=())).common == Point(1)


def test_a_page_has_one_p99_of_a_load() -> None:
    view = View(made())
    for variant in view.variants:
        for point in (*view.closed, *view.open):
            (p99,) = view.percentiles(variant, point, [99])
            assert p99 == view.spread(variant, point, "p99_us").median


def test_a_busy_machine_is_told_at_the_top() -> None:
    report = made()
    report["machine"]["load"] = 0.0
    assert 'role="alert"' not in page(View(report))
    report["machine"]["load"] = float(report["machine"]["cpus"])
    top, _, _ = page(View(report)).partition('class="tiles"')
    assert "The machine was busy before the first run" in top
    report["results"][0]["figures"]["client_busy"] = [0.99, 0.2]
    assert len(View(report).warnings()) == 2


def test_the_table_has_a_cell_for_every_head() -> None:
    for view in (View(made()), View(made(rates=()))):
        heads = table.columns(view)
        assert len(set(heads)) == len(heads)
        assert {len(row) for row in table.rows(view)} == {len(heads)}
        assert table.markdown(view).count("\n| ") == 1 + len(view.variants)
        page(view)


def test_wrong_answers_are_told() -> None:
    report = made()
    report["results"][0]["problems"] = {"HTTP status 503": 2}
    assert View(report).problems() == ["no authorization, 1 connection: 2 x HTTP status 503"]

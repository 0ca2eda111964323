"""For Locust: `locust -f loadtest/locustfile.py`. See LOCUST.md."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any, Final

from grpc.experimental import gevent as grpc_gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import RequestStats, StatsEntry

from authz.errors import AuthzError
from loadtest.swarm.direct import DirectCheck, NewTenant
from loadtest.swarm.expect import KEPT, UNSIGNED, WINDOW
from loadtest.swarm.http import ThroughEnvoy
from loadtest.swarm.report import put, timeline, verdict
from loadtest.swarm.result import Result, unanswered
from loadtest.swarm.session import now, session
from loadtest.swarm.shapes import SHAPES, Chosen

__all__ = ["Chosen", "DirectCheck", "NewTenant", "ThroughEnvoy"]

_STOP_SECONDS: Final = 15  # a request in flight may take as long
_USERS: Final = 20
_log: Final = logging.getLogger("loadtest")


def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        choices=list(SHAPES),
        default="steady",
        help="the load, and what happens meanwhile (default: steady)",
    )
    parser.add_argument(
        "--max-p99-ms", type=float, default=500, metavar="MS",
        help="fail where the 99th percentile of all legitimate requests is above (default: 500)",
    )  # fmt: skip
    parser.add_argument(
        "--max-fail-ratio", type=float, default=None, metavar="SHARE",
        help="fail where a larger share of legitimate requests gets no answer "
        "(default: by shape; 0 in rotation and replacement, 0.001 in most others)",
    )  # fmt: skip
    hidden: dict[str, Any] = {"include_in_web_ui": False}
    parser.add_argument(
        "--stack", default="", metavar="SOCKET", **hidden,
        help="use the stack with this control socket: what python -m loadtest.swarm.stack printed",
    )  # fmt: skip
    parser.add_argument(
        "--drain-seconds", type=float, default=10, metavar="SECONDS", **hidden,
        help="how long a replica that goes waits (default: 10, as in deploy/base)",
    )  # fmt: skip
    parser.add_argument(
        "--reuse", action="store_true",
        help="sidecars give answers again: what is taken back counts two seconds later",
    )  # fmt: skip
    parser.add_argument(
        "--policy-file", default="", metavar="FILE", **hidden,
        help="a policy in place of the demo's, which is what outcomes are expected by",
    )  # fmt: skip


def _begin(environment: Environment, **_: Any) -> None:
    grpc_gevent.init_gevent()
    runner, options = environment.runner, environment.parsed_options
    assert runner is not None  # noqa: S101 - Locust makes them before
    assert options is not None  # noqa: S101
    if environment.reset_stats:
        _log.warning("--reset-stats does not count here: it would forget wrong outcomes")
        environment.reset_stats = False
    environment.stop_timeout = environment.stop_timeout or _STOP_SECONDS
    if isinstance(runner, WorkerRunner):
        runner.register_message("stack", lambda msg, **_: session.heard(msg.data))
        environment.process_exit_code = 0  # the master judges
        return
    options.num_users = options.num_users or _USERS  # Locust's own default is one
    options.spawn_rate = options.spawn_rate or options.num_users / 2
    if options.reuse:
        session.window = WINDOW + KEPT
    session.start(environment, _flags(options), options.stack)
    _Judge(environment)
    if isinstance(runner, MasterRunner):
        environment.events.worker_connect.add_listener(
            lambda client_id, **_: runner.send_message("stack", session.message(), client_id)
        )


events.init_command_line_parser.add_listener(_options)
events.init.add_listener(_begin)


def _flags(options: argparse.Namespace) -> list[str]:
    flags = ["--drain-seconds", str(options.drain_seconds), *["--reuse"] * options.reuse]
    return [*flags, "--policy-file", options.policy_file] if options.policy_file else flags


class _Judge:
    """Says after each run whether it was good, and makes that the exit code."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._running = False
        self._report: tuple[str, ...] = ()
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stop.add_listener(self._stop)
        environment.events.quitting.add_listener(self._quit)
        environment.events.quit.add_listener(self._written)

    def _start(self, **_: Any) -> None:
        session.begin()
        self._running = True

    def _stop(self, **_: Any) -> None:
        if not self._running:
            return
        self._running = False
        environment = self._environment
        options, runner = environment.parsed_options, environment.runner
        assert options is not None  # noqa: S101
        assert runner is not None  # noqa: S101
        ratio = options.max_fail_ratio
        if ratio is None:
            ratio = SHAPES[options.shape].max_fail_ratio
        result = _result(environment.stats)
        broken = [*session.problems, *(it["msg"] for it in runner.exceptions.values())]
        try:
            facts = session.tell("facts")
        except AuthzError as error:
            broken.append(str(error))
            facts = session.facts
        broken += result.broken(
            max_p99_ms=options.max_p99_ms,
            max_fail_ratio=float(ratio),
            unanswered=unanswered(session.facts, facts),
        )
        _log.info("%s", result)
        _log.info(
            "answers that an Envoy did not wait for: %d; the service's memory: %.0f MiB before, "
            "%.0f MiB after",
            facts["timeouts"] - session.facts["timeouts"],
            session.facts["memory"] / 2**20,
            facts["memory"] / 2**20,
        )
        for problem in broken:
            _log.error("FAILED: %s", problem)
        environment.process_exit_code = 1 if broken else 0
        happened = timeline(session.happened, session.began, now())
        self._report = (verdict(result, broken), happened)

    def _quit(self, **_: Any) -> None:
        self._stop()
        session.end()

    def _written(self, **_: Any) -> None:
        """Locust has written its report, if it was to."""
        options = self._environment.parsed_options
        assert options is not None  # noqa: S101
        if not options.html_file or not self._report:
            return
        if not put(Path(options.html_file), *self._report):
            _log.warning("--html: this Locust's report has no place for verdict and events")


def _result(stats: RequestStats) -> Result:
    entries = list(stats.entries.values())
    mix = StatsEntry(stats, "", "")
    for entry in entries:
        if entry.method != "WRONG":
            mix.extend(entry)
    return Result(
        requests=mix.num_requests,
        failed=mix.num_failures,
        wrong=sum(entry.num_requests for entry in entries if entry.method == "WRONG"),
        either=sum(entry.num_requests for entry in entries if entry.method == "WINDOW"),
        unsigned=sum(
            error.occurrences
            for error in stats.errors.values()
            if str(error.error).startswith(UNSIGNED)
        ),
        p50_ms=mix.get_response_time_percentile(0.5) or 0,
        p99_ms=mix.get_response_time_percentile(0.99) or 0,
    )

"""By what a proxy finds an answer that it keeps: what the scripts of components/reuse look at."""

from __future__ import annotations

from typing import Final

from authz.domain.facts import Facts, Question

FIELDS: Final = {
    Question.SIGN: ("upstream", "host"),
    Question.VERIFY: ("principal", "port", "tokens"),
    Question.TRANSIT: ("principal", "port", "tokens", "serving", "host"),
}
"""`serving`: the two headers of Knative's. Without both of them the Host counts."""

Key = tuple[object, ...]


def key_of(question: Question, facts: Facts, without: str = "") -> Key | None:
    """The key, or `None` where the proxy always asks."""
    namespace, revision = map(",".join, (facts.serving_namespace, facts.serving_revision))
    if question is Question.TRANSIT and "," in namespace + revision:
        return None
    named = bool(namespace and revision)
    parts = {
        "upstream": facts.upstream,
        "principal": facts.principal,
        "port": facts.port,
        "tokens": ",".join(facts.tokens),
        "serving": namespace if named else "",
        "host": facts.host if question is Question.SIGN or not named else "",
    }
    return tuple(parts[it] for it in FIELDS[question] if it != without)


def alike(question: Question, one: Facts, other: Facts, without: str = "") -> Facts:
    """`other` with what `one` has in the key, and of the same proxy."""
    same = {
        field: getattr(one, field)
        for name in FIELDS[question]
        if name != without
        for field in (_SERVING if name == "serving" else (name,))
    }
    if question is Question.TRANSIT and any(one.serving_namespace) and any(one.serving_revision):
        same["host"] = other.host  # which nobody looks at, nor which revision it is
        if any(other.serving_revision):
            same["serving_revision"] = other.serving_revision
    of_the_proxy = {it: getattr(one, it) for it in ("caller", "hop", "forwarded", "queue_proxy")}
    return other._replace(**same, **of_the_proxy)


_SERVING: Final = ("serving_namespace", "serving_revision")

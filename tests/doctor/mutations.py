"""Every small change of a dump: what removes, repeats, reorders, adds or alters one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.doctor.proxies import Json


class Mutation(NamedTuple):
    """One change, made in place."""

    path: str
    """Where, with the places of lists left out, and types in place of what leads to them."""
    kind: str
    do: Callable[[], None]
    undo: Callable[[], None]


def mutations(dump: Json) -> Iterator[Mutation]:
    """All changes of a dump as xDS delivers it; paths begin with the place, in one word."""
    yield from _of_list(dump["configs"], "dump")
    bootstrap, clusters, listeners, routes = dump["configs"]
    yield from _changes(bootstrap["bootstrap"], "bootstrap")
    yield from _of_list(listeners["static_listeners"], "agent-listeners")
    yield from _of_list(listeners["dynamic_listeners"], "listeners")
    for it in listeners["static_listeners"]:
        yield from _changes(it["listener"], "agent-listener")
    for it in listeners["dynamic_listeners"]:
        listener = it["active_state"]["listener"]
        yield from _changes(listener, _place(listener, bootstrap))
    yield from _of_list(clusters["static_clusters"], "agent-clusters")
    for it in clusters["static_clusters"]:
        yield from _changes(it["cluster"], "agent-cluster")
    for it in clusters["dynamic_active_clusters"]:
        yield from _changes(it["cluster"], f"cluster-{it['cluster']['name'].split('|')[0]}")
    for it in routes["dynamic_route_configs"]:
        yield from _changes(it["route_config"], "routes")


def _place(listener: Json, bootstrap: Json) -> str:
    if bootstrap["bootstrap"]["node"]["id"].startswith("router~"):
        return f"gateway-{listener['address']['socket_address']['port_value']}"
    return str(listener["traffic_direction"]).lower()


def _changes(value: Any, path: str) -> Iterator[Mutation]:
    """All changes of all that is in a message."""
    if isinstance(value, dict):
        if "@type" in value:
            place = path.partition("/")[0].partition(".")[0]
            path = f"{place}/{str(value['@type']).rpartition('.')[2]}"
        yield _added(value, path)
        for key in [*value]:
            if key != "@type":
                inner = f"{path}.{key}"
                yield _removed(value, key, inner)
                if not isinstance(value[key], dict | list):
                    yield _altered(value, key, inner)
                yield from _changes(value[key], inner)
    elif isinstance(value, list):
        yield from _of_list(value, path)
        for number, item in enumerate([*value]):
            if not isinstance(item, dict | list):
                yield _altered(value, number, f"{path}[]")
            yield from _changes(item, f"{path}[]")


def _of_list(value: list[Any], path: str) -> Iterator[Mutation]:
    before = [*value]

    def become(several: list[Any]) -> Callable[[], None]:
        return lambda: value.__setitem__(slice(None), several)

    for number in range(len(before)):
        rest = before[:number] + before[number + 1 :]
        name = f"{path}[{before[number]['name']}]" if _is_named(before[number]) else f"{path}[]"
        yield Mutation(name, "drop", become(rest), become(before))
        twice = [*before, before[number]]
        yield Mutation(name, "repeat", become(twice), become(before))
    if len(before) > 1:
        yield Mutation(f"{path}[]", "reverse", become(before[::-1]), become(before))


def _is_named(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str) and "typed_config" in item


def _removed(message: Json, key: str, path: str) -> Mutation:
    before = {**message}

    def undo() -> None:
        message.clear()
        message.update(before)

    return Mutation(path, "remove", lambda: message.__delitem__(key), undo)


def _added(message: Json, path: str) -> Mutation:
    return Mutation(
        path,
        "add",
        lambda: message.__setitem__("not_known_yet", True),
        lambda: message.__delitem__("not_known_yet"),
    )


def _altered(place: Any, key: Any, path: str) -> Mutation:
    before = place[key]
    match before:
        case bool():
            after: Any = not before
        case int() | float():
            after = before + 1
        case _:
            after = f"{before}x"
    return Mutation(
        path,
        "alter",
        lambda: place.__setitem__(key, after),
        lambda: place.__setitem__(key, before),
    )

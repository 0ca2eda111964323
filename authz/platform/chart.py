"""The estimate as a picture: what istiod sends as tenants come, with scoping and without."""

from dataclasses import replace

from authz.errors import BadSettings
from authz.platform.estimate import MAX_PUSH, Load, pushes

_STEPS = 20


def svg(load: Load) -> str:
    """A line chart, from a twentieth of the tenants to twice as many.

    Raises:
        BadSettings: the package that draws is not installed.
    """
    try:
        import pygal  # noqa: PLC0415 - only this command needs its extra
    except ImportError:
        raise BadSettings(
            ["--plot: needs the package pygal: pip install 'tenant-authz[plot]'"]
        ) from None
    tenants = sorted(
        {max(1, round(load.tenants * 2 * step / _STEPS)) for step in range(1, _STEPS + 1)}
    )
    loads = [
        replace(load, tenants=count, changes=load.changes * count / load.tenants)
        for count in tenants
    ]
    chart = pygal.XY(
        title="What istiod sends, in MB a second",
        x_title=f"tenants of {load.services} services, changes in proportion",
        legend_at_bottom=True,
        logarithmic=True,
        dots_size=2,
        js=[],
        disable_xml_declaration=True,
    )
    for name, scoped in (("without Sidecar", False), ("with a Sidecar for each tenant", True)):
        chart.add(
            name,
            [(one.tenants, pushes(one, scoped=scoped).bytes_per_second / 1e6) for one in loads],
        )
    chart.add("one gigabit", [(tenants[0], MAX_PUSH / 1e6), (tenants[-1], MAX_PUSH / 1e6)])
    text: str = chart.render(is_unicode=True)
    return text

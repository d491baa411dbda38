"""Pages that open offline: one HTML file from a template of a package."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2

from skillsd.system.terminal import printable


def render(package: str, template: str, **values: Any) -> str:
    """``template`` of ``package`` filled in; every value is escaped unless the template says it is safe, and shows what
    a browser would obey otherwise.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (resources.files(package) / name).read_text("utf-8")),
        autoescape=True,
        finalize=lambda value: type(value)(printable(str(value))) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)

"""The scenarios, grouped by what they are about. Importing this registers them all."""

import scenarios.notes  # noqa: F401

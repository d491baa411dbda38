"""The scenarios, grouped by what they are about. Importing this registers them all."""

import scenarios.files
import scenarios.money
import scenarios.music
import scenarios.notes
import scenarios.phone
import scenarios.practice
import scenarios.todos  # noqa: F401

"""The recipes of the embedded models: what they were trained on, and how.

Uses environments, skills and policies; nothing but the command line uses it.
"""

from skillsd.policy.embedded import EMBEDDED as EMBEDDED  # where version 0.1 had them
from skillsd.policy.embedded import path as path

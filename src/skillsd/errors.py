"""The one error type that users see: a line that says what is wrong and what to change."""


class SkillSDError(Exception):
    """Bad input or a failed run, told in one line. The CLI prints it and exits with 1."""


class UsageError(SkillSDError):
    """A wrong option, preset or path. The CLI prints it and exits with 2."""

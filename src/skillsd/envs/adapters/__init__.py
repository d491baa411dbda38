"""Environments of other libraries. Each module needs the extra of its name.

Uses ``envs.base`` alone.
"""

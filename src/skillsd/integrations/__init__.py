"""Skill-SD inside other people's trainers. Each module needs the extra of its name.

Uses losses, skills and policies.
"""

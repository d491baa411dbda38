"""The recipes of the embedded models: what they were trained on, and how.

Uses environments, skills and policies; nothing but the command line uses it.
"""

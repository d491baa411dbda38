"""Methods x seeds: run, measured, and shown with intervals.

Uses whole runs, each in a process of its own.
"""

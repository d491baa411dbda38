"""What one learns from runs: evaluation, what the teacher knows, reports, comparisons.

Uses everything but the command line and other people's trainers.
"""

"""Sokoban: the game, its levels, a solver, and what tells the skill of an episode without an LLM.

Uses ``types`` alone; it knows no other environment.
"""

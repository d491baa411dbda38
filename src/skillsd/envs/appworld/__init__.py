"""AppWorld: an agent that writes Python against the APIs of simulated apps (Trivedi et al. 2024, arXiv:2407.18901).

Uses an engine in a Python of its own; only ``engine`` and ``pack`` run there.
"""

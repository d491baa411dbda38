"""Learning: Algorithm 1 (``trainer``), the update (``learner``), and the loop around them (``loop``).

Uses rollouts to play, skills to teach, and runs to keep what lasts.
"""

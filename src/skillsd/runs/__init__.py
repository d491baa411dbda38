"""What lasts of a run: its folder, episodes, checkpoints, metrics, and what people see of it meanwhile.

Uses what it writes down: rollouts, skills, policies; it knows no trainer.
"""

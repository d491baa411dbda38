"""Playing: episodes between a policy and environments, for training and for evaluation.

Uses policies, environments and skills; it knows neither losses nor the skill bank.
"""

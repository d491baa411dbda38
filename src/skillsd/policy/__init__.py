"""The language model: loading, chat format, log-probs of tokens, adapters, and the engines that generate.

Uses settings alone; it knows no environment and no skill.
"""

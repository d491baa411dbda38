"""What generates: transformers in this process, or a vLLM server.

Uses the policy's chat format and positions.
"""

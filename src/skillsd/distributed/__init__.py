"""Several processes: what they share, and weights that are spread over them (FSDP2, ZeRO).

Uses torch alone.
"""

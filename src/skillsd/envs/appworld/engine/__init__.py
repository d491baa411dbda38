"""What runs in the engine's own Python: the server, and what confines an agent's code. Imports nothing of ours."""

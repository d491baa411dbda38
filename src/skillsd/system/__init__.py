"""What the operating system gives: files that survive a crash, signals, terminals, the network; and secrets kept.

Uses ``errors`` alone; it knows nothing of learning.
"""

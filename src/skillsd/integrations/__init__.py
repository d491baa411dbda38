"""Other people's libraries: environments and trainers. Each module needs the extra of its name."""

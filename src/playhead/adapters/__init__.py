"""Playhead in other people's frameworks. Each adapter is a module of its own, which says what it needs."""

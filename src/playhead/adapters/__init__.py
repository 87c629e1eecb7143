"""Playhead in other people's frameworks. Each adapter is a module of its own, with an extra of the same name."""

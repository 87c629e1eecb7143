"""What Playhead costs, beside the same work without it: ``make bench``. See docs/benchmarks.md."""

"""Tools to test a store, and whatever uses one. Needs pytest, pytest-asyncio and hypothesis.

    from playhead.testing import ManualClock, StoreSuite

``StoreSuite`` is the Store contract as tests; ``playhead.testing.stateful.StoreMachine`` runs a store against a plain
model of it. docs/writing-a-store.md shows both at work.
"""

import pytest

# Asserts in here shall tell values, as they do in a test module; so this comes before the imports.
pytest.register_assert_rewrite("playhead.testing.suite", "playhead.testing.stateful", "playhead.testing.oracle")

from playhead.testing.clock import ManualClock  # noqa: E402
from playhead.testing.suite import StoreSuite  # noqa: E402

__all__ = ["ManualClock", "StoreSuite"]

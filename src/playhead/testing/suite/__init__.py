"""The Store contract as tests: one suite for every store. A new store is one fixture, and overrides nothing.

    class TestMine(StoreSuite):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock, options: MyStore(tmp_path / "data", clock=clock, options=options)

Each call makes one more store on the same data, which is empty when a test begins. The suite opens and closes them;
the fixture frees what it made itself. Two stores of one test behave like two processes on one database, except that
they end together.
"""

from playhead.testing.suite.appends import AppendsSuite
from playhead.testing.suite.endings import EndingsSuite
from playhead.testing.suite.finding import FindingSuite
from playhead.testing.suite.leases import LeasesSuite
from playhead.testing.suite.reads import ReadsSuite
from playhead.testing.suite.retention import RetentionSuite
from playhead.testing.suite.starting import StartingSuite
from playhead.testing.suite.survival import SurvivalSuite
from playhead.testing.suite.threads import ThreadsSuite
from playhead.testing.suite.watching import WatchingSuite


class StoreSuite(
    StartingSuite,
    LeasesSuite,
    EndingsSuite,
    AppendsSuite,
    ReadsSuite,
    WatchingSuite,
    ThreadsSuite,
    FindingSuite,
    RetentionSuite,
    SurvivalSuite,
):
    """Every guarantee of ``playhead.store.Store``, as a test."""

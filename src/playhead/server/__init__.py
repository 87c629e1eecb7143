"""``playhead serve``: the engine behind HTTP, with a chat on it.

local guard ─► encoded ids ─► routes: streams (native) · chat (template) · page, docs
                                 └──► Chat ─► Playhead, ChatAgent
"""

from playhead.server.app import create_app
from playhead.server.settings import Settings

__all__ = ["Settings", "create_app"]

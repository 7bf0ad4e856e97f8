"""Which tests one process of pytest-xdist runs."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling


class FileScheduling(LoadFileScheduling):
    """The tests of a file in one process, and all those with containers: they look at every container there is."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        folder, _, _ = file.rpartition("/")
        return folder if folder == "tests/containers" else file

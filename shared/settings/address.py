"""Addresses of inference servers."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple, Self

from nuclei_segmentation.shared.errors import UsageError


class Address(NamedTuple):
    """Where a server listens. As text: ``host:port``, an IPv6 host in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``host:port``; a ``http://`` before it and a slash behind are tolerated.

        Raises
        ------
        UsageError
            It is something else; https is named as not spoken.
        """
        if text.startswith("https://"):
            raise UsageError(f"{text!r}: https is not spoken here; give host:port of the server's HTTP port")
        found = re.fullmatch(r"(?:http://)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})/?", text)
        if found is None or not 0 < int(found[3]) < 65536:
            raise UsageError(f"{text!r} is not host:port (several are separated by commas)")
        return cls(found[1] or found[2], int(found[3]))

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, or in this pod, as far as the address tells."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

"""The port: of this machine alone, the usual one or a free one."""

from __future__ import annotations

import pytest

from ffr.errors import UsageError
from ffr.page import serving
from ffr.page.serving import open_port


def test_a_taken_port_is_another_one_or_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_port(0) as first:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UsageError, match=rf"--port {port} cannot be had \(.*\); name another"):
            open_port(port)
        monkeypatch.setattr(serving, "DEFAULT_PORT", port)
        with open_port(None) as second:
            assert second.getsockname()[1] not in (0, port)
    with open_port(None) as third:
        assert third.getsockname()[1] == port

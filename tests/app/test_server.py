"""The socket that the service listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from app.server import listen
from app.settings import Settings, SettingsError


def test_answers_are_sent_at_once() -> None:
    """Nagle's algorithm would hold the end of each back until the client has acknowledged its beginning."""

    async def conversation() -> None:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def client_came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen(Settings(host="127.0.0.1", port=0))
        async with asyncio.timeout(30), await asyncio.start_server(client_came, sock=listener):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            assert await accepted
            writer.close()

    asyncio.run(conversation())


def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1 port {port}: .*BOX2MASK_PORT"):
            listen(Settings(host="127.0.0.1", port=port))

"""The one WebSocket of a page, and the same by long polling where sockets are blocked.

A page says `{"follow": {TOPIC: OFFSET}}` or `{"leave": [TOPIC]}`; it is sent what `live.py` encodes, and a
beat every few seconds, by which it knows that silence is no loss.
"""

import asyncio
import json

from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from datatunerx.client import ApiError
from datatunerx.console import access
from datatunerx.console.live import RECHECK_SECONDS, Hub, Reader
from datatunerx.console.session import Sessions
from datatunerx.console.visit import PLACE, Connect, Page, Refused, Visit, cookie_name

BEAT_SECONDS = 5.0
POLL_SECONDS = 20.0
MAX_TOPICS = 300
LOGIN = 4401
"""The code of a socket that is closed because its visitor has to log in again."""


def socket(sessions: Sessions, connect: Connect) -> WebSocketRoute:
    """The socket of a namespace. Who mounts the console has checked its Host and Origin."""

    async def serve(socket: WebSocket) -> None:
        session = sessions.open(socket.cookies.get(cookie_name(socket), ""))
        try:
            if session is None or not session.token:
                return await socket.close(LOGIN)
            api = connect(session.token)
            await access.who(api)
        except ApiError:
            return await socket.close(LOGIN)
        await socket.accept()
        hub: Hub = socket.app.state.hub
        reader = hub.reader(socket.path_params["namespace"], api)
        tasks = [asyncio.create_task(part(socket, reader)) for part in (_hear, _tell, _beat)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return WebSocketRoute(f"{PLACE}/live", serve)


async def _hear(socket: WebSocket, reader: Reader) -> None:
    """What the page asks for, until it is closed or says something that makes no sense."""
    try:
        while True:
            said = await socket.receive_json()
            for name in said.get("leave", ()):
                reader.leave(str(name))
            await _follow(reader, said.get("follow", {}))
    except WebSocketDisconnect:
        return
    except (AttributeError, TypeError, ValueError, Refused):
        await socket.close(1003)


async def _tell(socket: WebSocket, reader: Reader) -> None:
    try:
        async for text in reader.messages():
            await socket.send_text(text)
    except WebSocketDisconnect:
        return


async def _beat(socket: WebSocket, reader: Reader) -> None:
    beats = 0
    try:
        while True:
            await socket.send_text('{"beat":1}')
            await asyncio.sleep(BEAT_SECONDS)
            beats += 1
            if beats * BEAT_SECONDS % RECHECK_SECONDS == 0:
                await reader.check()
    except WebSocketDisconnect:
        return
    except ApiError:  # the token was revoked
        await socket.close(LOGIN)


async def _follow(reader: Reader, asked: dict[str, int]) -> None:
    if len(reader.offsets) + len(asked) > MAX_TOPICS:
        raise Refused("A page follows at most 300 things.")
    for name, offset in asked.items():
        if str(name) not in reader.offsets:
            await reader.follow(str(name), max(0, int(offset)))


async def poll(visit: Visit) -> Response:
    """All messages there are after some offsets, as soon as there is one."""
    hub: Hub = visit.request.app.state.hub
    reader = hub.reader(visit.namespace, visit.api)
    texts: list[str] = []
    try:
        try:
            await _follow(reader, json.loads(visit.query.get("topics", "{}")))
        except (AttributeError, TypeError, ValueError):
            raise Refused("This page is too old, or was not made for you. Load it again.") from None
        messages = reader.messages()
        wait = POLL_SECONDS
        while len(texts) < MAX_TOPICS:
            try:
                texts.append(await asyncio.wait_for(anext(messages), wait))
            except TimeoutError:
                break
            wait = 0.02  # what else there is, but nothing that comes later
    finally:
        reader.close()
    return Response(f"[{','.join(texts)}]", media_type="application/json")


routes = [Page("/live", poll)]

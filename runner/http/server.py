"""Serving a Runner: the app under granian and the workers, in one process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from asyncflow.errors import Malformed, Unavailable
from runner.auth import is_loopback
from runner.http.app import create_app
from runner.http.bridge import PARKED_MAX, Bridge

if TYPE_CHECKING:
    from runner.runner import Runner

LOG: Final = logging.getLogger("asyncflow")

BACKLOG: Final = 1024
"""How many connections may wait to be accepted: what kernels allow unless told otherwise is more."""
FILES: Final = PARKED_MAX + 1_000
"""How many files the process may open, if it may: one for each caller that waits, and the store's."""
SPARE_DELIVERIES: Final = 32
"""How many deliveries are at work besides those whose steps run: stale ones and timers do not wait behind those."""
ACCEPT_SECONDS: Final = 10.0
"""How long the server may take until it answers."""
FINISH_SECONDS: Final = 3.0
"""What requests get after the workers have drained: both fit into the 30 s that orchestrators give after SIGTERM."""

# granian would set up logging for the whole process; with this it sets the level of its own logger.
_LOGGING: Final[dict[str, Any]] = {"incremental": True, "formatters": {}, "handlers": {}, "loggers": {"_granian": {}}}


def serve(
    runner: Runner,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    insecure: bool = False,
    worker: bool = True,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve *runner* until SIGTERM or SIGINT, then drain: what runs may end, who waits is answered, it is closed.

    A second signal ends the process at once; its leases lapse with it.

    Args:
        runner: Not begun yet: its workers run while it is served.
        host: Where to listen: this machine alone, unless *insecure*; elsewhere without it a scheduler's verified deliveries
            are served, and nobody else.
        port: 0: any free one.
        insecure: Listen elsewhere than on loopback, be reached under other names, though everybody may do everything.
        worker: Whether the workers run here; False leaves the steps to other processes. With a scheduler that delivers
            there are none: steps run in its requests.
        ready: Called with the address, `http://127.0.0.1:8080`, when it is served.

    Raises:
        Malformed: *host* is not this machine alone, and *insecure* was not said; or it is none. Or the scheduler delivers
            over HTTP, nothing is set that could verify it, and it is not both: *insecure*, and this machine alone.
        Unavailable: the port is taken, or cannot be listened at.
    """
    delivered = runner.scheduler.delivers and runner.terms.verified
    clients = insecure or is_loopback(host)
    if not clients and not delivered:
        raise Malformed(
            f"expected to listen on loopback, as 127.0.0.1, found {host!r}: there is no authentication yet, so whoever "
            "reaches the server may do everything; say insecure (--insecure) if that is what you want"
        )
    if runner.scheduler.delivers and not delivered and not is_loopback(host):
        raise Malformed(
            f"expected service_account or hmac_keys where the app listens at {host!r}: without them anybody who reaches it can "
            "bring deliveries to /tasks/, and insecure (--insecure) allows that on loopback alone"
        )
    address, port = _free(host, port)
    try:
        asyncio.run(_serve(runner, address, port, insecure=insecure, clients=clients, worker=worker, ready=ready))
    finally:
        runner.close()
        # The server's own threads hold objects of Python; they are to let go of them while there is an interpreter.
        gc.collect()


async def _serve(
    runner: Runner,
    address: str,
    port: int,
    *,
    insecure: bool,
    clients: bool,
    worker: bool,
    ready: Callable[[str], None] | None,
) -> None:
    _allow_files()
    app = create_app(runner, insecure=insecure, clients=clients)
    bridge = Bridge(app, deliveries=runner.concurrency + SPARE_DELIVERIES)
    server = Server(
        bridge,
        address=address,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=FILES,  # a connection that waits is no load
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
    )
    stop = _told_to_stop()
    if worker:
        runner.__enter__()
    serving = asyncio.create_task(server.serve())
    try:
        await _answering(address, port, serving)
        url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
        LOG.info("listening at %s: %s", url, _for_whom(insecure=insecure, clients=clients))
        if ready is not None:
            ready(url)
        await asyncio.wait({serving, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            raise Unavailable("the server has stopped by itself: see its log")
        LOG.info("draining: what runs may end, nothing new is taken")
    finally:
        await _drain(runner, bridge)
        server.stop()  # type: ignore[no-untyped-call]
        with suppress(Exception):
            await serving
        bridge.close()


async def _drain(runner: Runner, bridge: Bridge) -> None:
    """Let actions end, so that who waits for one gets his answer; then answer all others as things are."""
    await asyncio.to_thread(runner.drain)
    bridge.release()
    if not await bridge.finish(FINISH_SECONDS):
        LOG.warning("some requests did not end within %s s: their callers have to ask again", FINISH_SECONDS)


def _for_whom(*, insecure: bool, clients: bool) -> str:
    if not clients:
        return "for the deliveries of the scheduler alone"
    if insecure:
        return "everybody who reaches it may do everything (insecure)"
    return "for programs of this machine alone, which may do everything"


def _told_to_stop() -> asyncio.Event:
    """Give an event that SIGTERM and SIGINT set; the second one ends the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told, number)
    return stop


async def _answering(address: str, port: int, serving: asyncio.Task[None]) -> None:
    """Wait until connections are taken.

    Raises:
        Unavailable: they are not.
    """
    whole = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what stands for all addresses is none to connect to
    with suppress(TimeoutError):
        async with asyncio.timeout(ACCEPT_SECONDS):
            while not serving.done():
                try:
                    _, writer = await asyncio.open_connection(whole.get(address, address), port)
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                return
    raise Unavailable(f"the server does not listen at {address}, port {port}: see its log")


def _free(host: str, port: int) -> tuple[str, int]:
    """Give address and port to listen at; granian would share a port with another server, and tell no free one.

    Raises:
        Malformed: the host has no address.
        Unavailable: the port is taken, or cannot be listened at.
    """
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise Malformed(f"expected a host to listen at, found {host!r}, which has no address: {error}") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(found)
        except OSError as error:
            text = f"cannot listen at {host}, port {port} ({error.strerror}): stop what is there, or take another port"
            raise Unavailable(text) from error
        address, port = probe.getsockname()[:2]
        return str(address), int(port)


def _allow_files() -> None:
    """Raise the limit of open files as far as the system lets it; below, callers that wait are refused connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

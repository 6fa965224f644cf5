"""A cable: one node's way to Redis, a TCP proxy that can fall silent without closing.

    node --strand--> cable --> Redis     a strand is one connection; a node asks by one and hears by another

What is swallowed never arrives: a byte stream with a hole is of no use, so healing hangs up such strands.
"""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from typing import Literal

from tocsin_demo.settings import HOST

Silence = Literal["", "hearing", "all"]
"""What comes through no more: nothing, what Redis announces, or any byte in either direction."""

READ_BYTES = 65_536
_SUBSCRIBES = (
    b"\r\nSUBSCRIBE\r\n"  # the word as a client sends it (RESP); JSON escapes line ends, so no payload has it
)


class Strand:
    """One connection through a cable."""

    def __init__(self, *ends: StreamWriter) -> None:
        self._ends = ends
        self._tail = b""
        self.hears = False
        """Whether announcements come over it."""
        self.has_hole = False

    def look(self, data: bytes) -> None:
        """At what the node asks for."""
        seen = self._tail + data
        self.hears = self.hears or _SUBSCRIBES in seen
        self._tail = seen[-len(_SUBSCRIBES) :]

    def hang_up(self) -> None:
        """Both ends notice."""
        for end in self._ends:
            end.transport.abort()


class Cable:
    """Leads from `port` to Redis at `target`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._strands: set[Strand] = set()
        self._is_cut = False
        self.silence: Silence = ""
        self.port = 0

    def fall_silent(self, silence: Silence) -> None:
        """From now on this is swallowed, on the strands there are and on those to come, until `heal`."""
        self.silence = silence

    def heal(self) -> None:
        """Everything comes through again. Strands that miss something are hung up."""
        self.silence = ""
        for strand in self._strands:
            if strand.has_hole:
                strand.hang_up()

    def cut(self) -> None:
        """Hang up all strands, and those that are just being made."""
        self._is_cut = True
        for strand in self._strands:
            strand.hang_up()

    async def lead(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Pass on what comes over a connection that has just been accepted, until either side goes."""
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return None
        strand = Strand(writer, far_writer)
        if self._is_cut:
            return strand.hang_up()
        self._strands.add(strand)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass_on(strand, reader, far_writer, is_from_node=True))
                ways.create_task(self._pass_on(strand, far_reader, writer, is_from_node=False))
        finally:
            self._strands.discard(strand)
            strand.hang_up()
        return None

    async def _pass_on(
        self, strand: Strand, reader: StreamReader, writer: StreamWriter, *, is_from_node: bool
    ) -> None:
        """No faster than the other side takes it."""
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if is_from_node:
                    strand.look(data)
                if self._swallows(strand, is_from_node=is_from_node):
                    strand.has_hole = True
                    continue
                writer.write(data)
                await writer.drain()
        strand.hang_up()  # which ends the other way too: Redis has no use for half a connection

    def _swallows(self, strand: Strand, *, is_from_node: bool) -> bool:
        is_announced = strand.hears and not is_from_node
        return self.silence == "all" or (self.silence == "hearing" and is_announced)


@contextlib.asynccontextmanager
async def laid(target: int) -> AsyncIterator[Cable]:
    """A cable to Redis at this port. On leaving, nothing of it is left."""
    cable = Cable(target)
    strands: set[asyncio.Task[None]] = set()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        strand = asyncio.create_task(cable.lead(reader, writer))
        strands.add(strand)
        strand.add_done_callback(strands.discard)

    listening = await asyncio.start_server(accept, HOST, 0)
    cable.port = listening.sockets[0].getsockname()[1]
    try:
        yield cable
    finally:
        listening.close()
        cable.cut()
        await asyncio.gather(*strands)

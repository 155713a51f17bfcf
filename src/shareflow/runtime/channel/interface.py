"""On which of this machine's addresses a listening socket answers, where a library listens on all of them.

TensorFlow's server binds the wildcard address whatever host it is given. A socket filter, which a process may put
on its own sockets, then drops every packet that is not for the one address: to the network the port is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from shareflow.errors import ChannelError, ConfigError

ANY = "0.0.0.0"
LOOPBACK = "127.0.0.1"

# linux/filter.h: loads, a shift, comparison, and the verdict; offsets from _NETWORK on are in the IP header.
_LOAD_BYTE, _LOAD_WORD, _SHIFT_RIGHT, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x20, 0x74, 0x15, 0x06
_NETWORK = 0xFFF00000
_DESTINATION = 16
_SO_ATTACH_FILTER = 26
_ESTABLISHED, _CLOSE_WAIT = "01", "08"


def split_address(address: object, what: str) -> tuple[str, int]:
    """Host and port of "host:port".

    Raises:
        ConfigError: it has another form.
    """
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or ":" in host or "/" in host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{what} is 'host:port', as '10.0.0.7:7000'; got {address!r}. Give it in this form.")
    return host, int(port)


def own_address(host: str, what: str) -> str:
    """A host to listen on, as an IPv4 address.

    Raises:
        ConfigError: it is neither 'localhost' nor an IPv4 address.
    """
    try:
        return LOOPBACK if host == "localhost" else str(ipaddress.IPv4Address(host))
    except ValueError:
        raise ConfigError(
            f"{what} listens on an IPv4 address of this machine, or on {ANY} for all of them; got {host!r}. "
            "Write the address in numbers."
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def answer_only_at(port: int, address: str) -> None:
    """Makes this process's sockets that listen on a port answer to one IPv4 address alone.

    Raises:
        ChannelError: that cannot be done here, or somebody connected from elsewhere before it was done.
    """
    if address == ANY:
        return
    if not sys.platform.startswith("linux"):
        raise ChannelError(
            f"TensorFlow's server listens on all addresses of a machine, and only Linux can keep it to {address}. "
            f"Use Linux, or listen on {ANY} behind a firewall."
        )
    listeners, (program, _memory) = 0, _filter(address)
    for listener in _listening(port):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        listeners += 1
    if not listeners:
        raise ChannelError(f"Nothing in this process listens on port {port}. Start the server first.")
    # From here on nobody else can connect. Whoever did before the filter stood is in the kernel's tables.
    if _connected_elsewhere(port, address):
        raise ChannelError(
            f"Somebody connected to port {port} from another machine before it was kept to {address}. Start again."
        )


def _listening(port: int) -> Iterator[socket.socket]:
    for name in os.listdir("/proc/self/fd"):
        # A descriptor may be gone by now, or be no socket.
        with contextlib.suppress(OSError):
            copy = os.dup(int(name))
            try:
                found = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                continue
            with found:
                if found.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and found.getsockname()[1] == port:
                    yield found


def _filter(address: str) -> tuple[bytes, ctypes.Array[ctypes.c_char]]:
    """A program that lets packets to the IPv4 address pass: what setsockopt takes, and the memory it points to."""
    word = int(ipaddress.IPv4Address(address))
    steps = [
        (_LOAD_BYTE, 0, 0, _NETWORK),
        (_SHIFT_RIGHT, 0, 0, 4),
        (_JUMP_IF_EQUAL, 0, 3, 4),  # IP version 4, else to the last step
        (_LOAD_WORD, 0, 0, _NETWORK + _DESTINATION),
        (_JUMP_IF_EQUAL, 0, 1, word),
        (_RETURN, 0, 0, 0xFFFFFFFF),  # the whole packet
        (_RETURN, 0, 0, 0),  # nothing of it
    ]
    memory = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    return struct.pack("HP", len(steps), ctypes.addressof(memory)), memory


def _connected_elsewhere(port: int, address: str) -> bool:
    number = struct.unpack("=I", socket.inet_aton(address))[0]
    allowed = {f"{number:08X}", f"{0:016X}{socket.htonl(0xFFFF):08X}{number:08X}"}
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            host, _, at = local.partition(":")
            if int(at, 16) != port or state not in (_ESTABLISHED, _CLOSE_WAIT) or host in allowed:
                continue
            # Connections of others from the same port have an inode that is not among ours.
            if inode == "0" or inode in _own_inodes():
                return True
    return False


def _own_inodes() -> set[str]:
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    return inodes

"""Connections of a party: it listens here, and dials with shareflow_client.link."""

from __future__ import annotations

from shareflow.runtime.channel.listener import Listener
from shareflow_client.link import Callbacks, Link, LinkSettings, dial
from shareflow_client.tls import Identity, Trusted
from shareflow_client.wire import Frame, FrameKind

__all__ = ["Callbacks", "Frame", "FrameKind", "Identity", "Link", "LinkSettings", "Listener", "Trusted", "dial"]

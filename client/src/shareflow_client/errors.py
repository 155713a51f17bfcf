"""Errors that a party, a client and the files they share raise on purpose.

ShareflowError
├── PlanError       a plan file that is damaged, truncated, oversized, newer, or does not pass the audit
├── ConfigError     a configuration that cannot be used; names the key
├── ChannelError    a connection that cannot be made or was lost: network, TLS, handshake
│   └── PeerError   a peer sent what the plan does not allow
├── RequestError    a request that was refused or failed; ``retry`` tells whether another try can succeed
├── StoreError      what a party keeps on disk cannot be read or written: full, damaged, in use, spent
└── TimeLimitError  something took longer than its limit

Each text gives the rule, what was given, and the way out; none ever holds secret data.
"""

from __future__ import annotations


class ShareflowError(Exception):
    """Base of all errors of shareflow."""


class PlanError(ShareflowError):
    """A plan file that cannot be used."""


class ConfigError(ShareflowError):
    """A configuration that cannot be used; the text names the key."""


class ChannelError(ShareflowError):
    """A connection that cannot be made, or was lost."""


class PeerError(ChannelError):
    """A peer sent what the plan does not allow."""


class RequestError(ShareflowError):
    """A request that was refused or failed. ``retry`` tells whether another try can succeed."""

    def __init__(self, text: str, retry: bool = False) -> None:
        super().__init__(text)
        self.retry = retry


class StoreError(ShareflowError):
    """What a party keeps on disk cannot be read or written."""


class TimeLimitError(ShareflowError):
    """Something took longer than its limit."""

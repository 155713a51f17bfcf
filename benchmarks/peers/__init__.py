"""shareflow and a peer, SecretFlow SPU, on the same tasks in one run on one machine: ``python -m benchmarks.peers``.

``tasks`` says what is computed; ``ours`` and ``peer`` measure one side each, the latter through ``spu_parties``, which
runs in the peer's own environment; ``report`` makes tables, JSON and the plot. The method is in docs/peers.md.
"""

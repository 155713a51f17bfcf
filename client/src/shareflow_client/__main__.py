"""`python -m shareflow_client`: the command, where its script is not on the path."""

from shareflow_client.command import run

run()

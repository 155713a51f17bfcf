"""`python -m shareflow_command`."""

from shareflow_command import main

main()

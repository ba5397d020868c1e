"""`python -m radapter` is the command `radapter`."""

from radapter_cli.__main__ import run

run()

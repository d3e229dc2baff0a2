"""`python -m broker` runs the broker alone; see broker/standalone."""

from broker.standalone.cli import main

main()

"""What processes log: our own progress, and of libraries only trouble. Never keys or prompts."""

import logging


def configure_logging() -> None:
    """Log to standard error. Libraries' request logs are left out: ours name what was done."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("tallystick").setLevel(logging.INFO)

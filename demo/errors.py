"""What ends the demo early."""


class DemoFailed(Exception):
    """The demo cannot go on, and why; derived from by each reason."""

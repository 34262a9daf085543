"""The parts of the supervisor. Its public names are in `runtime.supervisor`."""

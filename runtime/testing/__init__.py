"""What tests of actors need; public, because it is needed to add an actor.

    async with testing.actor_system() as system:
        counter = await system.start(Counter(step=2))
        assert await counter.ask(GetCount(), within=1) == 0

Works on trio's own clock and on a MockClock. `run_virtual` makes a run that a seed repeats, `ChaosMonkey` kills at
every message boundary, `assert_events` looks at what happened. Production code does not import it.
"""

from runtime.public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)

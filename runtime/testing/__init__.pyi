from .actors import Crash as Crash
from .actors import Echo as Echo
from .actors import Failable as Failable
from .actors import FailableActor as FailableActor
from .actors import FailableError as FailableError
from .actors import Hang as Hang
from .actors import Probe as Probe
from .actors import Swallow as Swallow
from .chaos import Boundary as Boundary
from .chaos import ChaosFailed as ChaosFailed
from .chaos import ChaosMonkey as ChaosMonkey
from .chaos import ChaosReport as ChaosReport
from .chaos import Kill as Kill
from .event_assertions import Happened as Happened
from .event_assertions import assert_events as assert_events
from .event_assertions import happened as happened
from .system import ActorSystem as ActorSystem
from .system import OnCrash as OnCrash
from .system import actor_system as actor_system
from .trees import RunningTree as RunningTree
from .trees import running_group as running_group
from .trees import running_tree as running_tree
from .virtual_time import run_virtual as run_virtual
from .virtual_time import seeded as seeded

__all__: list[str]

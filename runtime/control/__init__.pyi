from .client import call as call
from .command import ControlCall as ControlCall
from .command import NoArguments as NoArguments
from .command import OperableSystem as OperableSystem
from .command import Operator as Operator
from .command import control_command as control_command
from .protocol import UNAVAILABLE as UNAVAILABLE
from .protocol import USAGE as USAGE
from .protocol import ControlError as ControlError
from .protocol import encode as encode
from .runtime_commands import as_item as as_item

__all__: list[str]

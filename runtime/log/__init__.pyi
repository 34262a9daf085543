from ..redaction import MASK as MASK
from ..redaction import redact as redact
from .limit import LogLimit as LogLimit
from .logs import Logger as Logger
from .logs import check as check
from .logs import flush as flush
from .logs import get_logger as get_logger
from .logs import reconfigure as reconfigure
from .logs import start as start
from .logs import stop as stop
from .record import Record as Record
from .record import as_json as as_json
from .record import as_text as as_text

__all__: list[str]

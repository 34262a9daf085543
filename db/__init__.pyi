from .errors import AmbiguousCommit as AmbiguousCommit
from .errors import BusinessError as BusinessError
from .errors import ConnectionLost as ConnectionLost
from .errors import DatabaseBusy as DatabaseBusy
from .errors import ForeignAwait as ForeignAwait
from .errors import LeaseError as LeaseError
from .errors import LeaseExpired as LeaseExpired
from .errors import LeaseTimeout as LeaseTimeout
from .errors import PoolDown as PoolDown
from .errors import TransactionLost as TransactionLost
from .lease.lease import OpenLease as OpenLease
from .lease.queue import Lane as Lane
from .money import Money as Money
from .settings import DatabaseSettings as DatabaseSettings
from .tx import Row as Row
from .tx import Tx as Tx

__all__: list[str]

from .client import Pool as Pool
from .client import pool_of as pool_of
from .database_worker import ClaimingWorker as ClaimingWorker
from .database_worker import DatabaseWorker as DatabaseWorker
from .pool import PoolActor as PoolActor
from .settings import PoolSettings as PoolSettings

__all__: list[str]

from .identity import Identity as Identity
from .identity import NotAllowed as NotAllowed
from .identity import Operators as Operators
from .identity import Role as Role
from .identity import demand as demand
from .identity import front_end as front_end
from .least_roles import LEAST_ROLES as LEAST_ROLES
from .least_roles import least_role as least_role

__all__: list[str]

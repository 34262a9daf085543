from .config import Config as Config
from .errors import ConfigErrors as ConfigErrors
from .loader import load as load
from .loader import load_sections as load_sections
from .loader import load_text as load_text
from .secret import Secret as Secret
from .section import settings as settings

__all__: list[str]

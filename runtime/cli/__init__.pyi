from .findings import Finding as Finding
from .findings import of_configuration as of_configuration
from .findings import of_machine as of_machine
from .findings import of_python as of_python
from .findings import of_system as of_system
from .main import cli as cli
from .main import run_command_line as run_command_line
from .operators import acting_operator as acting_operator
from .operators import command_words as command_words
from .options import FilePath as FilePath
from .options import Seconds as Seconds
from .options import Text as Text
from .options import Word as Word
from .options import call_control as call_control
from .options import complete_actor as complete_actor
from .options import config_option as config_option
from .options import control_options as control_options
from .options import json_option as json_option
from .options import load_config as load_config
from .options import load_sections as load_sections
from .output import Style as Style
from .output import Styled as Styled
from .output import emit as emit
from .output import emit_line as emit_line
from .output import styled as styled
from .output import table as table

__all__: list[str]

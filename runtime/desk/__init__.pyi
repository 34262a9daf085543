from .actor_pages import run_command as run_command
from .app import DeskAction as DeskAction
from .app import desk_app as desk_app
from .board import Parts as Parts
from .board import Source as Source
from .desk import Desk as Desk
from .page import Action as Action
from .page import Addition as Addition
from .page import Button as Button
from .page import Download as Download
from .page import Field as Field
from .page import Figure as Figure
from .page import Need as Need
from .page import NotFound as NotFound
from .page import Page as Page
from .page import Question as Question
from .page import Row as Row
from .page import View as View

__all__: list[str]

"""What keeps a backup from being made or restored; each text says what was left as it was."""

from __future__ import annotations

from typing import ClassVar

from runtime import AtlasError
from runtime.exit_codes import CONFIG, GAVE_UP


class ArchiveRefused(AtlasError):
    """The file is no whole, unchanged backup, or one that this program cannot read; nothing was written."""

    exit_code: ClassVar[int] = 65


class BackupFailed(AtlasError):
    """The backup could not be made; there is no file of that name."""

    exit_code: ClassVar[int] = GAVE_UP


class RestoreRefused(AtlasError):
    """The backup cannot be restored there; the text says why and what to do."""

    exit_code: ClassVar[int] = CONFIG


class RestoreFailed(AtlasError):
    """It was begun and could not be finished; repeating the command begins anew."""

    exit_code: ClassVar[int] = GAVE_UP

"""Where a DSN leads, in words that may be printed; one that cannot be read for certain is refused, and never repeated."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from db.errors import DatabaseUnusable

UNREADABLE = (
    "the DSN cannot be read (it is not shown, since it may hold a password); it looks like "
    "postgresql://user:password@host:5432/name, several hosts as host1:5432,host2:5432. In user, password and name write "
    "@ as %40, / as %2F, : as %3A, ? as %3F, # as %23 and % as %25 (setting database.dsn)"
)
_SCHEME = re.compile(r"postgres(?:ql)?://")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:]*)(?::(\d{1,5}))?")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_LARGEST_PORT = 65535


@attrs.frozen
class DatabaseAddress:
    """Where a DSN leads, in words that may be printed."""

    dsn: str = attrs.field(repr=False)
    host: str
    """Every host with its port, in the order in which they are tried."""
    database: str
    root_certificate: str = ""
    """The file of `sslrootcert`; empty if the DSN names none."""

    @classmethod
    def parse(cls, dsn: str) -> DatabaseAddress:
        """Read hosts and database out of a DSN; what it leaves open is named by the driver's own defaults.

        Raises DatabaseUnusable, without any part of the DSN, if there is doubt where it leads: a password with an unescaped
        `@` or `/` would otherwise be taken for a host or a database, and be printed as such.
        """
        try:
            return cls._read(dsn)
        except ValueError:
            # Not chained: the cause may repeat parts of the DSN.
            raise DatabaseUnusable(UNREADABLE) from None

    @classmethod
    def _read(cls, dsn: str) -> DatabaseAddress:
        text = dsn.strip()
        if not _SCHEME.match(text) or "#" in text or any(each.isspace() or not each.isprintable() for each in text):
            raise ValueError
        parts = urlsplit(text)
        if parts.netloc.count("@") > 1 or "@" in parts.path or "@" in parts.query or parts.path.count("/") > 1:
            raise ValueError
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else {}
        if not all(_PARAMETER.fullmatch(name) for name in query):
            raise ValueError
        ports = query.get("port", [""])[0].split(",")
        listed = parts.netloc.rpartition("@")[2] or query.get("host", [""])[0]
        hosts = []
        for number, each in enumerate(listed.split(",")):
            if each.startswith("/"):  # the directory of a unix socket
                hosts.append(each)
                continue
            found = _HOST.fullmatch(unquote(each))
            if found is None or int(found[2] or 0) > _LARGEST_PORT:
                raise ValueError
            port = found[2] or (ports[number] if len(ports) > number else ports[0])
            name = found[1] or "the default host"
            hosts.append(f"{name}:{port}" if port else name)
        database = unquote(parts.path.lstrip("/")) or query.get("dbname", [""])[0] or "the user's own"
        return cls(text, ", ".join(hosts), database, query.get("sslrootcert", [""])[0])

    def __str__(self) -> str:
        return f"database {self.database!r} on {self.host}"

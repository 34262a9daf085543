"""HTTP, once: the listener that every part of ATLAS serves with, and the factory of every HTTP client.

The listener holds strangers to limits that are settings, speaks HTTP/1.1 and nothing else, and lets no connection hurt
another or hold up a stop. The clients refuse to talk while their task holds a database lease. Nothing else in `runtime`
but the desk imports this package.

    listener = listen("admin", settings.host, settings.port)
    app = LimitedApp(Starlette(routes=…), settings, name="admin", crashed=…, killed=…)
    await HttpServer("admin", app, settings, crashed=…).run(listener, stop)
"""

from __future__ import annotations

from runtime.http.client import GuardedTransport as GuardedTransport
from runtime.http.client import Timeouts as Timeouts
from runtime.http.client import new_client as new_client
from runtime.http.client import reason_of as reason_of
from runtime.http.hosts import LocalHosts as LocalHosts
from runtime.http.hosts import is_loopback as is_loopback
from runtime.http.limited_app import LimitedApp as LimitedApp
from runtime.http.limits import Buckets as Buckets
from runtime.http.limits import ConnectionLimits as ConnectionLimits
from runtime.http.limits import RequestLimits as RequestLimits
from runtime.http.limits import has_controls as has_controls
from runtime.http.limits import head_size as head_size
from runtime.http.listener import listen as listen
from runtime.http.listener import open_listener as open_listener
from runtime.http.listener import url_of as url_of
from runtime.http.routing import route as route
from runtime.http.server import HttpServer as HttpServer
from runtime.http.sources import IpAddress as IpAddress
from runtime.http.sources import read_address as read_address
from runtime.http.sources import site_of as site_of
from runtime.http.sources import source_of as source_of

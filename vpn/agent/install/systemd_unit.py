"""The systemd unit of a node agent."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

NAME: Final = "atlas-node"
CREDENTIALS: Final = PurePosixPath("/run/credentials") / f"{NAME}.service"
"Where systemd puts the files of LoadCredential, readable by the service alone."

_UNIT: Final = """\
# Written by `atlas node install`, which replaces it. Changes of your own belong into a drop-in: systemctl edit atlas-node
[Unit]
Description=ATLAS node agent: Xray and the keys it serves
Documentation=https://www.freedesktop.org/software/systemd/man/systemd.exec.html
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
{credentials}
StateDirectory={name}
StateDirectoryMode=0700
{user}

# The agent ends Xray itself; what is left after its time is killed. Restarting cuts customers for a moment, a wedged agent
# would let removed ones stay.
KillMode=mixed
TimeoutStartSec=60
TimeoutStopSec=15
WatchdogSec=60
Restart=always
RestartSec=1
# A wrong configuration or missing rights do not pass by themselves.
RestartPreventExitStatus=64 77 78

# One descriptor a connection, twice.
LimitNOFILE=1048576
# A core would hold customers' keys.
LimitCORE=0
UMask=0077

# Customers' port may be below 1024. Nothing else of root is needed.
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Other users' processes are nobody's business; the agent's own Xray stays visible, its sockets are looked up in /proc.
ProtectProc=invisible
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
# AF_NETLINK: the list of open connections.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
# pidfd_getfd is how exactly one customer's connections are cut. It is not in the set, and PrivateUsers= or a tracing
# restriction (kernel.yama.ptrace_scope above 1) would forbid it, too.
SystemCallFilter=@system-service pidfd_getfd
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def unit_text(command: Sequence[str], credentials: Mapping[str, str], user: str = "") -> str:
    """The unit. `credentials` are files by the name under which the service finds them in CREDENTIALS; `user` is an
    existing account, empty for one that systemd makes up for this service alone."""
    return _UNIT.format(
        name=NAME,
        command=shlex.join(command).replace("%", "%%"),
        credentials="\n".join(f"LoadCredential={name}:{path.replace('%', '%%')}" for name, path in credentials.items()),
        user=f"User={user}" if user else "DynamicUser=yes",
    )

"""What can go wrong between ATLAS and a VPN node, sorted by what the caller may do about it.

`NodeUnreachable`, `NodeUnavailable`, `NodeReadOnly` and `BreakerOpen`: nothing is wrong with the key, try again later.
`NodeAmbiguous`: the change may have happened; read it back or send the same change again. `NodeConflict`: a newer
generation is known there; read the desired state again. `NodeRefused`: the node will never accept this request as it
is.
"""

from __future__ import annotations

from typing import ClassVar

from runtime import AtlasError


class NodeError(AtlasError):
    """Base of every failure of a VPN node; `node` names which, `text` is the message without the name."""

    exit_code: ClassVar[int] = 69

    def __init__(self, node: str, message: str) -> None:
        super().__init__(f"node {node}: {message}")
        self.node = node
        self.text = message


class NodeUnreachable(NodeError):
    """No connection to the agent, so nothing was changed. Safe to repeat."""


class NodeTlsFailed(NodeUnreachable):
    """The TLS connection to the agent was refused by one of both sides, so nothing was changed. The text says which
    certificate or address is wrong and which setting mends it; repeating it alone does not help."""


class NodeUnavailable(NodeError):
    """The agent answered that it cannot apply changes now (its Xray is restarting). It keeps what it wrote down and
    converges on its own; repeating the same request is safe."""


class NodeReadOnly(NodeUnavailable):
    """The agent cannot write (its disk is full): it serves what it has and takes no changes. It answers, so no breaker opens.
    Repeating the request once there is room again is safe."""


class NodeNotOwner(NodeUnavailable):
    """Another installation rules the node, or the node takes no first owner any more: it is read as before and takes no
    changes of ours. `nonce_digest` tells which of its owner's nonces it has, `takes_changes` that it has no owner and takes
    changes from everybody. No breaker opens."""

    def __init__(self, node: str, message: str, nonce_digest: str = "", *, takes_changes: bool = False) -> None:
        super().__init__(node, message)
        self.nonce_digest = nonce_digest
        self.takes_changes = takes_changes


class BreakerOpen(NodeError):
    """The call was not tried: the node failed repeatedly and is given time. `retry_in` is seconds until the next probe."""

    def __init__(self, node: str, message: str, retry_in: float) -> None:
        super().__init__(node, message)
        self.retry_in = retry_in


class NodeAmbiguous(NodeError):
    """The request was sent, no answer came, and reading back did not settle it. It may or may not have been applied."""


class NodeConflict(NodeError):
    """The node knows a newer generation of this key, or a removal of this one; `generation` is what it knows."""

    def __init__(self, node: str, message: str, generation: int) -> None:
        super().__init__(node, message)
        self.generation = generation


class NodeRefused(NodeError):
    """The node will not accept this request; `code` is the agent's machine-readable reason."""

    def __init__(self, node: str, message: str, code: str, status: int = 400) -> None:
        super().__init__(node, message)
        self.code = code
        self.status = status


class NodeTooLarge(NodeRefused):
    """The request is larger than the agent, or a proxy in front of it, takes. Nothing was changed; send less at once."""


class NodeUnknownKey(NodeRefused):
    """The key is not wanted on the node. `removed`: up to which generation its removal is remembered there, -1 if none;
    `pending`: that removal has not been confirmed by Xray yet."""

    def __init__(self, node: str, message: str, removed: int = -1, *, pending: bool = False) -> None:
        super().__init__(node, message, "unknown_key", 404)
        self.removed = removed
        self.pending = pending


class NodeCannotList(NodeRefused):
    """The node cannot list its keys. Compare `NodeState.digest` with that of the wanted keys, and send the full set
    (`VpnNode.sync`) where they differ."""

    def __init__(self, node: str, message: str, status: int = 501) -> None:
        super().__init__(node, message, "cannot_list", status)


class NodeUnauthorized(NodeRefused):
    """The bearer token is missing or wrong: correct `token` in this node's settings."""


class NodeProtocolError(NodeError):
    """The answer is not what an ATLAS agent says: a wrong address, a proxy in between, or an incompatible version."""


class LinkError(AtlasError):
    """A VLESS link cannot be read. The text names the part at fault and never repeats the link."""

    exit_code: ClassVar[int] = 64


class TunnelError(AtlasError):
    """A tunnel could not be opened, or nothing came through it."""

    exit_code: ClassVar[int] = 69


class XrayError(AtlasError):
    """Base of the failures of a local Xray process."""

    exit_code: ClassVar[int] = 69


class XrayConfigRefused(XrayError):
    """The configuration is wrong: found before the start, or refused by Xray itself (exit status 23)."""

    exit_code: ClassVar[int] = 78


class XrayCannotListen(XrayError):
    """Xray could not take its port or socket (exit status 255)."""


class XrayEnded(XrayError):
    """Xray ended, or never said that it had started."""


class XrayDown(XrayError):
    """Xray is not up just now; the agent starts it again with every wanted key."""


class XrayCallFailed(XrayError):
    """A call to Xray's own interface failed or its answer could not be read; `code` is the gRPC status (-1: no answer)."""

    def __init__(self, message: str, code: int = -1) -> None:
        super().__init__(message)
        self.code = code


class AgentError(AtlasError):
    """Base of the errors that end a node agent, or keep it from starting."""


class AgentMisconfigured(AgentError):
    """A setting of the agent is wrong or missing."""

    exit_code: ClassVar[int] = 78


class InstallRefused(AgentError):
    """A node cannot be installed here, or not by this user."""

    exit_code: ClassVar[int] = 77


class NotStarted(AgentError):
    """Everything is installed, but systemd could not start it."""

    exit_code: ClassVar[int] = 69


class StoreCorrupt(AgentError):
    """The agent's own file of keys is damaged; the text names file, line and byte, and how to go on."""

    exit_code: ClassVar[int] = 78


class StoreUnreadable(AgentError):
    """The agent may not read or write its data directory."""

    exit_code: ClassVar[int] = 77


class StoreBusy(AgentError):
    """Another agent runs on the same data directory: end it, or choose another directory."""

    exit_code: ClassVar[int] = 69


class StoreFailed(AgentError):
    """A change could not be made durable (disk full or failing). The agent refuses changes until it can write again."""

    exit_code: ClassVar[int] = 74


class ListenRefused(AgentError):
    """A port the agent needs is taken or not allowed."""

    exit_code: ClassVar[int] = 69

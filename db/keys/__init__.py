"""Keys on their way to the nodes and off them, as rows: claimed, told, confirmed, reconciled.

Promise: a key counts as active only after every node that it belongs on has confirmed it; each change raises its
generation and each claim its epoch, so that no worker acts on a former state. Nothing here talks to a node. Entry points:
`activation`, `removal`, `reissue`, `reconcile`, `nodes`, `canary`, `usage`; for the actors of keys and nodes.
"""

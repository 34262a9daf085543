"""The public HTTP side: providers' webhooks, the shop's interface and customers' subscription links on one listener.

Promises: a stranger costs a bounded amount of memory and time; no 2xx to a provider before its event is stored. Entry
point: in `supervisor.toml` `gateway.Gateway`. No other package imports this one.
"""

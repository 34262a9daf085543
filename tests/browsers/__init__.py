"""The pages as people see them: a real Chromium, a real `atlas run`; `make browsers`, not part of `make test`."""

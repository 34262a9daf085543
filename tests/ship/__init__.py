"""What an operator does with an installation: install, back up, restore, upgrade; `make ship`, not part of `make test`."""

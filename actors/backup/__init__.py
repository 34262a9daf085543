"""An installation in one file, and an installation from one: the database, what makes its nodes the same nodes, and its secrets.

Promise: a backup is there as a whole or not at all; one that was cut short or changed in any byte is refused before anything is
written; restoring makes a new installation and replaces nothing. Entry points: `contents.collect`, `archive.write_archive` and
`read_archive`, `database.dump` and `restore_dump`, `restoring`. For `commands`.
"""

"""The file format of backups, and what of an installation is in one."""

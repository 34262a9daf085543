"""Tests of the auditor: rich histories, and rows that are altered on purpose."""

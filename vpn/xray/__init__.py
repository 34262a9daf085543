"""Driving Xray: its configuration, its process, its run-time interface."""

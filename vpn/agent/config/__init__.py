"""What every part of the agent takes as given: its settings, and the metrics that it counts in.

Promise: settings that cannot work, or would be unsafe, are refused before anything starts, each by its name in the file. Entry
points: `settings.load_settings`, `settings.AgentSettings` and `metrics`. Imports nothing else of the agent.
"""

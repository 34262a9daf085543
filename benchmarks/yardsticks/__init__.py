"""What others take for the same: plain trio in this process, asyncio and pykka in one of their own."""

"""Workers: the processes that run workflows and activities."""

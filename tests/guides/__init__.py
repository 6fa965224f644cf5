"""The applications of docs/integrate/, made and run as their pages say."""

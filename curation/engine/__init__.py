"""The engine: a plan of phases, run exactly once by a bounded driver, on Ray or in this process."""

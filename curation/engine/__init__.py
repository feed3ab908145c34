"""Runs a pipeline: plans phases, runs their tasks on Ray or in this process, and publishes the result.

    runtime     a run from its pipeline to its result (run.py), deletion of documents, status, run.json, the lock
    results     what the result consists of: ledger, documents, shards; publishing, generations, explain
    execution   the driver that runs the tasks of a phase, executors, the order of phases, stages of global steps
    tasks       what a worker does: map tasks, stage tasks, column stores, top-up of single rows, scrubbing
    planning    phases and tasks before anything runs: fingerprints, splits of the input, prior runs, exclude lists
    shuffle     partition files between the stages of a global step

Imports point downwards in this list (planning and shuffle do not import each other).
"""

"""The sender: the process that delivers what agents recorded.

One sender serves one spool (a destination and a set of credentials) and all agents that record for
it. ``sources`` reads rings and segments, ``assemble`` puts traces together, ``finish`` makes a
trace's info, ``http`` and ``store`` deliver, ``loop`` runs it all.

The agent waits for none of this, so MLflow's own code is used wherever it knows better.
"""

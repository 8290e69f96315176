"""Search: spaces, journal, study, sources, stopping, the trainable and the runner.

Only `trial`, `cluster` and `runner` import Ray; the rest can be driven without it.
"""

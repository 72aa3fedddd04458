"""The server for real traffic: one HTTP door over Ray Serve, on a laptop and on a cluster unchanged.

A request goes: `http.py` (who may ask, how much, what) -> `app.py` (Ray Serve: queue, batch, replicas) ->
`batching.py`, where the requests of a batch go through the model together.
"""

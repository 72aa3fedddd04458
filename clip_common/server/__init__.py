"""The HTTP server, on Ray Serve; the same on one machine and on a cluster.

A request passes `admission.py` (API key, size limits), `http.py` and `request.py` (routes, parsing, checks),
`app.py` (Ray Serve: queues, batches, replicas) and `batching.py`, which runs a batch of requests through the
model.
"""

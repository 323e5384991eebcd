"""What one request, and all of them together, may ask of the server. Over a limit: a 4xx that says so; a full
queue: 503 with Retry-After."""

from __future__ import annotations

MAX_PIXELS = 1024 * 1024
"""of a label map; larger ones are refused by their header, before a pixel is decoded"""
MIN_SIDE = 8
"""pixels of a label map's shorter side"""
MAX_SAMPLES = 16
"""pictures of one request"""
MAX_WORK = 4 * MAX_PIXELS
"""pixels times pictures of one request"""
MAX_REGIONS = 32
"""regions of one map that have noise of their own"""
MAX_REGION_WORK = 8 * MAX_PIXELS
"""pixels times regions of one request: attention by region holds a number for each such pair"""
MAX_BODY = 8 * 1024 * 1024
"""bytes of a request's body"""
MAX_QUEUE = 128
"""pictures that wait to be generated"""
MAX_BATCH = 8
"""pictures generated at a time"""
BATCH_WORK = MAX_PIXELS
"""pixels (with regions more, see `Job.work`) generated at a time, or one picture: bounds memory"""
QUEUE_WORK = 64 * MAX_PIXELS
"""the same, waiting"""
BATCH_WAIT = 0.004
"""seconds that a request waits for others of its size"""
REQUEST_SECONDS = 60.0
"""time until a request's pictures must be there"""
RETRY_AFTER = 1
"""seconds after which to try again where the queue is full"""
MAX_SEED = 2**32 - 1
LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""addresses that only this machine reaches"""

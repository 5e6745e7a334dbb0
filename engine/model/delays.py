"""Longest delays of invocations."""

LONGEST_DELAY = 7 * 86_400.0  #: seconds; longest delay of a request to the API
LONGEST_RETRY = LONGEST_DELAY / 2  #: largest ``retry.longest``; jitter can double it

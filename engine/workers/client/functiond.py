from functiond_client import *  # type: ignore[import-not-found]  # noqa: F403  (for functions that are of no app)

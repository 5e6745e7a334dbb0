"""Code packages of functions and dependencies: unpacking, storage, quota, and export."""

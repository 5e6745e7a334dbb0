"""Code packages: unpacking, storage, quota, and export."""

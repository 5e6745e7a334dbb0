"""Deployment over the API: packages of folders, apps and manifests."""

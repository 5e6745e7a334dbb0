"""Execution of attempts in instances: processes that are kept for further requests.

    Pool ──▶ Allocator ──▶ Launcher ──▶ Instance

The pool runs attempts. The allocator chooses the instance of each, or has the launcher start one. Instances on this
machine are in ``local``.
"""

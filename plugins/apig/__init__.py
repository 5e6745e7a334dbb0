"""APIG, the API gateway, shared, dedicated, or part of ROMA: each HTTP request to an API calls the API's function.

The client waits for the function's reply unless the invocation type in the API's ``func_info`` is ``async``.
"""

from __future__ import annotations

from engine import Mode, Plugin, TriggerDisplay, TriggerRules
from plugins.apig.events import example
from plugins.apig.options import ApigOptions, ApigSettings, conflicts, reply_fields
from plugins.apig.source import ApigService, ApigTrigger, taken

plugin = Plugin(
    kinds=("APIG", "DEDICATEDGATEWAY", "APIC"),
    service=ApigSettings,
    serve=ApigService,
    options=ApigOptions,
    trigger=ApigTrigger,
    modes=frozenset({Mode.SYNC, Mode.ASYNC}),
    fixed_mode=False,
    rules=TriggerRules(
        vendor=True,
        may_disable=False,
        unique=("name",),
        mode=lambda options: Mode(options.func_info.invocation_type),
        mode_option="func_info",
        conflicts=conflicts,
        taken=taken,
        claimed=("path", "match_mode", "req_method", "sl_domain", "env_name", "cors"),
        start_before_stop=True,
        reply_fields=reply_fields,
        address=ApigService.address,
    ),
    example=example,
    display=TriggerDisplay(
        about={
            "APIG": "Shared API gateway: HTTP requests to a path of your own.",
            "DEDICATEDGATEWAY": "HTTP requests to a gateway with an address of its own.",
            "APIC": "ROMA's API gateway: HTTP requests to a path of your own.",
        },
        subject=lambda options: f"{options.req_method} {options.path}",
    ),
)

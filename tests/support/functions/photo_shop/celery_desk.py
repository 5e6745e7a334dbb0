"""Front desk of the photo shop with Celery."""

import darkroom
from celery import group
from celery_shop import appraise, import_orders, remind

import_orders.delay(1)
remind.apply_async(("99",), countdown=3600).revoke()
values = group(appraise.s(thing) for thing in darkroom.ESTATE)().get(timeout=60)
darkroom.save("desk", "values", values)
